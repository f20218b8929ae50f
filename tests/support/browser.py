"""Debian's Chromium for tests of pages."""

import shutil

from support.debian import install


def chromium() -> str:
    """Path of the browser, which is installed if need be."""
    if not shutil.which("chromium"):
        install("chromium")
    found = shutil.which("chromium")
    assert found
    return found
