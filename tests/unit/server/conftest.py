"""A running server before a fake API server."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.server_world import World, world


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    """The server under test."""
    async with world(tmp_path) as found:
        yield found
