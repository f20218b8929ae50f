"""Dockerfiles fit the repository, the chart and each other."""

import re
from pathlib import Path

import pytest

from drakkar.constants import DATA_DIR, RUN_AS_USER

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "images").glob("Dockerfile.*"))


def test_there_is_one_per_component() -> None:
    assert [path.suffix for path in FILES] == [".devices", ".operator", ".server", ".worker"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_copied_exists_and_reaches_the_builder(path: Path) -> None:
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (?!--from)(.*)$", path.read_text(), re.MULTILINE):
        *sources, _ = line.split()
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in allowed, source


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_last_stage_is_not_root_and_has_no_build_tools(path: Path) -> None:
    last = path.read_text().split("\nFROM ")[-1]
    assert f"USER {RUN_AS_USER}:{RUN_AS_USER}" in last
    assert "RUN " not in last
    assert "COPY --from=build" in last


def test_worker_holds_the_data_where_recipes_look() -> None:
    text = (ROOT / "images/Dockerfile.worker").read_text()
    assert f"--dir {DATA_DIR}" in text
    assert f"COPY --from=build {Path(DATA_DIR).parent} " in text
