"""What the site needs beyond mkdocs: links to files of the repository outside docs/."""

import re
from pathlib import Path
from posixpath import dirname, normpath
from typing import Any

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\[([^\]]*)\]\((\.\./[^)#]*)\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Name files that are not part of the site instead of linking to them.

    A link that leads to no file at all is left, so that mkdocs tells of it.
    """
    folder = f"docs/{dirname(page.file.src_uri)}"

    def named(link: re.Match[str]) -> str:
        path = normpath(f"{folder}/{link[2]}")
        if path.startswith("docs/") or not (ROOT / path).exists():
            return link[0]
        return link[1] if f"`{path}`" == link[1] else f"{link[1]} (`{path}`)"

    return _LINK.sub(named, markdown)
