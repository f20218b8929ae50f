"""Generated files are committed as they would be generated."""

from pathlib import Path

import pytest

from drakkar.crdgen.__main__ import files

ROOT = Path(__file__).parents[3]
FILES = files()


@pytest.mark.parametrize("path", sorted(FILES))
def test_file_is_up_to_date(path: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == FILES[path], (
        f"{path} is not what the models say: run make generate"
    )


def test_no_crd_is_left_of_a_kind_that_is_gone() -> None:
    found = {
        f"charts/drakkar/crds/{path.name}" for path in (ROOT / "charts/drakkar/crds").iterdir()
    }
    assert found == {path for path in FILES if path.startswith("charts/")}


def test_reference_names_every_field_with_bounds() -> None:
    page = FILES["docs/reference/trainingjob.md"]
    assert "| `spec.replicas` | integer | `1` | >= 1, <= 4096 | Pods in the gang. |" in page
    assert "`status.restarts[].reason`" in page
    recipes = FILES["docs/reference/recipes.md"]
    assert "| `model.hidden` | integer | `256` | >= 16, <= 65536 |" in recipes
    assert "`data.source`" in recipes
