"""helm, wherever it is: on PATH or among the programs built for the local cluster."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from drakkar.local.build import ensure_programs
from drakkar.local.progress import Silent

CHART = Path(__file__).parents[3] / "charts" / "drakkar"

Object = dict[str, Any]
Render = Callable[..., list[Object]]


@pytest.fixture(scope="session")
def helm(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run helm with arguments; its own files stay out of the user's home."""
    program = shutil.which("helm") or ensure_programs(Silent(), ["helm"]).helm
    home = tmp_path_factory.mktemp("helm")
    environment = {
        **os.environ,
        **{f"HELM_{part}_HOME": str(home / part) for part in ("CACHE", "CONFIG", "DATA")},
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(program), *arguments], capture_output=True, text=True, env=environment, check=False
        )

    return run


@pytest.fixture(scope="session")
def attempt(
    helm: Callable[..., subprocess.CompletedProcess[str]],
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Render the chart in namespace drakkar-system with values; what helm answered."""

    def run(values: Object | None = None, *arguments: str) -> subprocess.CompletedProcess[str]:
        sets = [f"{key}={json.dumps(value)}" for key, value in (values or {}).items()]
        flags = [part for item in sets for part in ("--set-json", item)]
        return helm("template", "drakkar", str(CHART), "-n", "drakkar-system", *flags, *arguments)

    return run


@pytest.fixture(scope="session")
def render(attempt: Callable[..., subprocess.CompletedProcess[str]]) -> Render:
    """The objects that the chart makes of values."""

    def run(values: Object | None = None, *arguments: str) -> list[Object]:
        answer = attempt(values, *arguments)
        assert answer.returncode == 0, answer.stderr
        return [item for item in yaml.safe_load_all(answer.stdout) if item]

    return run
