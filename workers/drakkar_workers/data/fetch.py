"""Fetches the text of known sources with apt's own client, checks it and keeps it."""

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

from drakkar_workers.data import bible
from drakkar_workers.data.sources import SOURCES, Source


class FetchError(RuntimeError):
    """The text could not be fetched; says which step failed and what to do."""


def fetch(name: str, folder: Path) -> Path:
    """Make ``folder/NAME.txt`` unless it is there and right; its path.

    Raises KeyError for an unknown name, FetchError if the package can't be had or its text has
    another checksum than the pinned one.
    """
    source = SOURCES[name]
    target = folder / f"{name}.txt"
    if target.is_file() and _sha256(target.read_bytes()) == source.sha256:
        return target
    with tempfile.TemporaryDirectory(prefix="drakkar-fetch-") as scratch:
        # apt downloads as the user _apt, who must be able to write here.
        Path(scratch).chmod(0o755)
        text = bible.extract(_member(source, Path(scratch))).encode()
    found = _sha256(text)
    if found != source.sha256:
        raise FetchError(
            f"{name}: text of {source.package} has sha256 {found}, expected {source.sha256} "
            f"(package version {source.version})"
        )
    folder.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".txt.{os.getpid()}")
    part.write_bytes(text)
    part.replace(target)
    return target


def _member(source: Source, scratch: Path) -> bytes:
    _download(source, scratch)
    packages = sorted(scratch.glob("*.deb"))
    if not packages:
        raise FetchError(f"{source.package}: apt-get left no package file")
    _run(["dpkg-deb", "-x", str(packages[0]), "tree"], scratch)
    return (scratch / "tree" / source.member).read_bytes()


def _download(source: Source, scratch: Path) -> None:
    pinned = ["apt-get", "download", f"{source.package}={source.version}"]
    try:
        _run(pinned, scratch)
    except FetchError:
        # Package lists are missing on a fresh machine; another release of Debian has another
        # version of the same text, and the checksum decides.
        if os.geteuid() == 0:
            _run(["apt-get", "update", "-q"], scratch)
        _run(["apt-get", "download", source.package], scratch)


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    except FileNotFoundError:
        raise FetchError(
            f"{command[0]} is not installed: the text comes from a Debian package; copy the file "
            "from another machine, or give an absolute path of any text as data.source"
        ) from None
    except subprocess.TimeoutExpired:
        raise FetchError(f"{' '.join(command)}: no end after 300 s") from None
    if done.returncode:
        raise FetchError(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
