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


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_base_may_be_any_image_with_python3_and_both_stages_use_it(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"^FROM (.*)$", text, re.MULTILINE) == ["${BASE} AS build", "${BASE}"]
    assert "RUN python3 -m venv /opt/drakkar/venv" in text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_image_says_what_it_is_made_of(path: Path) -> None:
    built, last = path.read_text().split("\nFROM ")[-2:]
    assert "--output-file /opt/drakkar/sbom.cdx.json /opt/drakkar/venv/bin/python" in built
    assert "LABEL dev.drakkar.sbom=/opt/drakkar/sbom.cdx.json" in last
    assert "COPY --from=build /opt/drakkar /opt/drakkar" in last


def test_worker_holds_the_data_where_recipes_look() -> None:
    text = (ROOT / "images/Dockerfile.worker").read_text()
    assert f"--dir {DATA_DIR}" in text
    assert f"COPY --from=build {Path(DATA_DIR).parent} " in text
