"""Plain text out of the data file of Debian's ``bible-kjv-text``.

The file (``usr/lib/bible.data``) is a header and a row of windows of 64 KiB of text, each an LZW
stream as ``compress`` writes it, less its magic number. Big-endian words: at 0x54 the window size,
at 0x58 the number of windows, from 0x5c their offsets and the end of the last. Lines read
``Ge1:1 In the beginning ...``.
"""

import re
import struct
import subprocess
from itertools import pairwise

MAGIC = b"EC02Compressed Data File"
_SIZES_AT = 0x54
_OFFSETS_AT = 0x5C
_LZW_MAGIC = b"\x1f\x9d\x90"
_VERSE = re.compile(r"^(\w+?)(\d+):(\d+) (.*)$")


def extract(data: bytes) -> str:
    """One verse per line, without references; a blank line starts a chapter.

    Raises ValueError if ``data`` is no such file, OSError or CalledProcessError if gzip fails.
    """
    if not data.startswith(MAGIC):
        raise ValueError(f"bible.data: starts with {data[:8]!r}, expected {MAGIC[:8]!r}")
    _, count = struct.unpack_from(">II", data, _SIZES_AT)
    offsets = struct.unpack_from(f">{count + 1}I", data, _OFFSETS_AT)
    windows = [
        # gzip reads the format of compress; Python's standard library does not.
        subprocess.run(
            ["gzip", "-dc"], input=_LZW_MAGIC + data[a:b], capture_output=True, check=True
        ).stdout
        for a, b in pairwise(offsets)
    ]
    return verses(b"".join(windows).decode("ascii"))


def verses(text: str) -> str:
    """The prose of lines with references; lines without one (the title) are left out."""
    chapter: tuple[str, str] | None = None
    lines: list[str] = []
    for line in text.splitlines():
        match = _VERSE.match(line)
        if match is None:
            continue
        book, number, _, prose = match.groups()
        if chapter not in (None, (book, number)):
            lines.append("")
        chapter = (book, number)
        lines.append(prose)
    return "\n".join(lines) + "\n"
