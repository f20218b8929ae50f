"""The documentation holds together: links lead somewhere, and what it names is there."""

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.main import get_command

from drakkar.cli.main import app

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for page in PAGES:
        assert (tmp_path / page.relative_to(DOCS)).with_suffix(".html").exists(), page
    front = (tmp_path / "index.html").read_text()
    loaded = re.findall(r'<(?:script|link)[^>]+(?:src|href)="(https?://[^"]+)', front)
    assert not loaded, "the site loads nothing from elsewhere"


def test_files_outside_the_site_are_named(tmp_path: Path) -> None:
    sys.path.insert(0, str(DOCS))
    try:
        import hooks
    finally:
        sys.path.remove(str(DOCS))

    class Page:
        class file:  # noqa: N801
            src_uri = "how-to/x.md"

    def made(text: str) -> str:
        return str(hooks.on_page_markdown(text, page=Page))

    assert made("[chart](../../charts/drakkar/README.md)") == "chart (`charts/drakkar/README.md`)"
    assert made("[kept](../architecture.md)") == "[kept](../architecture.md)"
    assert made("[gone](../../no/such.md)") == "[gone](../../no/such.md)"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_that_are_named_exist(page: Path) -> None:
    for path in re.findall(r"\bexamples/[\w.-]+\.yaml", page.read_text()):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_that_are_shown_exist(page: Path) -> None:
    """Each line of a code block that calls drakkar names a command of it."""
    known = set(getattr(get_command(app), "commands", {}))
    blocks = re.findall(r"^```[a-z]*$(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    for block in blocks:
        for word in re.findall(r"^\s*drakkar ([a-z-]+)", block, re.MULTILINE):
            assert word in known, word


@pytest.mark.parametrize("picture", sorted(DOCS.rglob("*.svg")), ids=lambda path: path.stem)
def test_pictures_are_well_formed(picture: Path) -> None:
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
