"""Many listeners at once, and one who does not listen: all others get the newest state, in bounded memory."""

import asyncio
import gc
import resource
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from drakkar_server import sse
from support.server_world import ADMIN, World, world

CLIENTS = 500
LARGE = "x" * 2_000
MOST_MEBIBYTES = 200
"""What 500 streams may take, clients included, which run in this process too; they take far less."""


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    """The server under test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * CLIENTS)), hard))
    async with world(tmp_path, streams_per_user=2 * CLIENTS) as found:
        yield found
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Listener:
    """A client of the stream of all jobs, with as little around it as there can be."""

    def __init__(self, here: World) -> None:
        self._port = int(here.url.rpartition(":")[2])

    async def open(self, *, buffer: int | None = None) -> "Listener":
        raw = socket.socket()
        if buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", self._port))
        self.reader, self.writer = await asyncio.open_connection(sock=raw, limit=1 << 22)
        request = (
            f"GET /api/v1/jobs/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN}\r\n\r\n"
        )
        self.writer.write(request.encode())
        assert b"200" in await self.reader.readline()
        return self

    async def until(self, part: bytes) -> None:
        """Read on until this comes."""
        async with asyncio.timeout(120):
            await self.reader.readuntil(part)

    def close(self) -> None:
        """Hang up."""
        self.writer.transport.abort()


def resident_mebibytes() -> float:
    """Memory of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


async def test_five_hundred_listeners_all_get_the_newest_state(here: World) -> None:
    here.job("one", status={"phase": "Pending"})
    await here.sees("ann/one")
    before = resident_mebibytes()
    listeners = [await Listener(here).open() for _ in range(CLIENTS)]
    live = here.app.state.context.live
    await here.until(lambda: live.listeners == CLIENTS, "all listen", 120)
    for step in range(200):
        progress = {"step": step, "totalSteps": 200}
        here.job("one", status={"phase": "Running", "progress": progress, "pendingReason": LARGE})
    await asyncio.gather(*(each.until(b'"step":199') for each in listeners))
    assert resident_mebibytes() - before < MOST_MEBIBYTES
    for each in listeners:
        each.close()
    await here.until(lambda: live.listeners == 0, "all are let go", 120)


async def test_who_does_not_listen_holds_up_nobody_and_is_let_go(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "STALL_SECONDS", 2.0)
    for index in range(50):
        here.job(f"job-{index}", status={"phase": "Pending"})
    await here.sees("ann/job-49")
    live = here.app.state.context.live
    deaf = await Listener(here).open(buffer=4096)
    other = await Listener(here).open()
    await here.until(lambda: live.listeners == 2, "both listen")
    most = step = 0
    try:
        # Until what the deaf one does not take fills all buffers on the way, and for long enough.
        while live.listeners == 2:
            step += 1
            for index in range(50):
                progress = {"step": step, "totalSteps": 1_000_000}
                status = {"phase": "Running", "progress": progress, "pendingReason": 20 * LARGE}
                here.job(f"job-{index}", status=status)
            await other.until(f'"step":{step},'.encode())
            most = max(most, *(len(each._changed) for each in live._subscriptions))
    finally:
        deaf.close()
        other.close()
    # What waits is bounded by the number of objects, however often they change.
    assert most <= 50
