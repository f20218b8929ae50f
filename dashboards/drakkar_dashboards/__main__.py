"""Write the dashboards as the chart installs them: python -m drakkar_dashboards."""

import json
from pathlib import Path

from drakkar_dashboards.boards import ALL
from drakkar_dashboards.grafana import render

FOLDER = Path(__file__).parents[2] / "charts" / "drakkar" / "files" / "dashboards"


def files() -> dict[str, str]:
    """File name -> content."""
    return {
        f"{board.uid}.json": json.dumps(render(board), indent=1, ensure_ascii=False) + "\n"
        for board in ALL
    }


def main() -> None:
    """Write them all; files of dashboards that are no more are removed."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    found = files()
    for path in FOLDER.glob("*.json"):
        if path.name not in found:
            path.unlink()
    for name, content in found.items():
        (FOLDER / name).write_text(content)


if __name__ == "__main__":
    main()
