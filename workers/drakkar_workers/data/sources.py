"""The data sets that recipes may name, and where their text lies."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from drakkar.constants import DATA_DIR
from drakkar_workers.errors import ConfigError

DATA_DIR_ENV = "DRAKKAR_DATA_DIR"
DEFAULT_FETCH_DIR = Path("~/.cache/drakkar/data")


@dataclass(frozen=True, slots=True)
class Source:
    """A text that ``python -m drakkar_workers.data fetch`` makes out of a Debian package."""

    package: str
    version: str
    member: str
    """Path in the package."""
    sha256: str
    """Of the resulting UTF-8 text."""
    about: str


SOURCES: dict[str, Source] = {
    "bible-kjv": Source(
        package="bible-kjv-text",
        version="4.38",
        member="usr/lib/bible.data",
        sha256="82a24e4e23c644fe579ed387b20e54eb529cc0a87a25e0810064edb2216780c2",
        about="King James Bible, 4.1 MB, public domain",
    )
}


def locate(source: str, environ: Mapping[str, str] = os.environ) -> Path:
    """The text file of a recipe's ``data.source``: a known name or an absolute path.

    Names are looked up in ``$DRAKKAR_DATA_DIR``, else the image's folder, else the folder that
    ``fetch`` fills. Raises ConfigError if there is no such name or file.
    """
    if source.startswith("/"):
        path = Path(source)
        if not path.is_file():
            raise ConfigError(f"data.source: no file {source}")
        return path
    if source not in SOURCES:
        known = ", ".join(sorted(SOURCES))
        raise ConfigError(
            f"data.source: {source!r} is unknown; known: {known}, or an absolute path"
        )
    named = environ.get(DATA_DIR_ENV)
    # os.path: Path.expanduser raises where the user has no home, as in a container.
    fetched = Path(os.path.expanduser(DEFAULT_FETCH_DIR))  # noqa: PTH111
    folders = [Path(named)] if named else [Path(DATA_DIR), fetched]
    for folder in folders:
        if (folder / f"{source}.txt").is_file():
            return folder / f"{source}.txt"
    looked = " or ".join(str(folder) for folder in folders)
    raise ConfigError(
        f"data.source: {source}.txt is not in {looked}; "
        f"run: python -m drakkar_workers.data fetch {source}"
    )
