"""The chart's README, by helm-docs from its values: python -m support.chart."""

import subprocess
import tempfile
from pathlib import Path

from drakkar.local.build import ensure_programs
from drakkar.local.progress import Silent

CHART = Path(__file__).parents[2] / "charts" / "drakkar"
PAGE = CHART / "README.md"
CI = sorted((CHART / "ci").glob("*-values.yaml"))
"""Values that turn everything on, each a way to install."""


def page() -> str:
    """The whole page."""
    program = ensure_programs(Silent(), ["helm-docs"]).helm_docs
    with tempfile.TemporaryDirectory() as folder:
        # It writes only beside a chart, and reads no more than these of it.
        for name in ("Chart.yaml", "values.yaml", "README.md.gotmpl"):
            (Path(folder) / name).write_bytes((CHART / name).read_bytes())
        done = subprocess.run(
            [program, "--chart-search-root=.", "--sort-values-order=file"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return (Path(folder) / "README.md").read_text().rstrip("\n") + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
