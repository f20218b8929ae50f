"""Write charts/drakkar/crds and docs/reference: ``python -m drakkar.crdgen [REPOSITORY_ROOT]``."""

import sys
from pathlib import Path

from drakkar.catalogue.page import accelerators_page
from drakkar.crdgen import crd, reference
from drakkar.v1alpha1 import KINDS


def files() -> dict[str, str]:
    """Path in the repository -> text of every generated file."""
    found = {
        f"charts/drakkar/crds/{model.KIND.resource}.yaml": crd.as_yaml(model) for model in KINDS
    }
    for model in KINDS:
        found[f"docs/reference/{model.KIND.name.lower()}.md"] = reference.kind_page(model)
    found["docs/reference/recipes.md"] = reference.recipes_page()
    found["docs/reference/accelerators.md"] = accelerators_page()
    return found


def main() -> None:
    """Write all files below the folder given (the current one by default)."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    if not (root / "charts" / "drakkar").is_dir():
        sys.exit(f"{root}/charts/drakkar is missing: run this in the root of the repository")
    for path, text in files().items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
