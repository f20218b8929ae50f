"""The operator's part that speaks to routers, and a real router, over a real socket."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from drakkar.routing import Endpoint, Revision, RouteTable, digest
from drakkar_operator.cluster.routers import Routers

UID = "service-uid"
TOKEN = "the operator's"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture
async def engine() -> AsyncIterator[str]:
    """A server that answers every completion; its URL."""

    async def complete(_request: web.Request) -> web.Response:
        return web.json_response({"choices": [{"text": "x"}], "usage": {"completion_tokens": 1}})

    app = web.Application()
    app.add_routes([web.post("/v1/completions", complete)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
async def router() -> AsyncIterator[tuple[int, int]]:
    """A router process: its port for clients and the one for the operator."""
    port, control = free_port(), free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "drakkar_workers.serve.router", "--uid", UID, "--host", "127.0.0.1",
        "--token-digest", digest(TOKEN),
        "--port", str(port), "--control-port", str(control), "--drain-delay", "0",
    )  # fmt: skip
    yield port, control
    process.terminate()
    await process.wait()


def table(*endpoints: Endpoint) -> RouteTable:
    return RouteTable(
        service="ml/chat",
        uid=UID,
        version=0,
        endpoints=list(endpoints),
        revisions=[Revision(name="r1", weight=100)],
    )


async def test_a_held_request_is_told_at_once_and_answered_when_a_replica_comes(
    engine: str, router: tuple[int, int]
) -> None:
    port, control = router
    news: asyncio.Queue[str] = asyncio.Queue()
    routers = Routers(news.put_nowait, {UID: TOKEN}.__getitem__, port=control)

    async def until(true: object) -> None:
        assert callable(true)
        async with asyncio.timeout(120):
            while not true():
                await news.get()

    try:
        routers.tell("ml/chat", table(), {"pod": "127.0.0.1"})
        await until(lambda: routers.heard(UID))
        assert routers.heard(UID)["pod"].stats.table_version == 0
        async with aiohttp.ClientSession() as session:
            body = {"model": "chat", "prompt": "And"}
            asked = asyncio.create_task(
                session.post(f"http://127.0.0.1:{port}/v1/completions", json=body)
            )
            await until(lambda: routers.heard(UID)["pod"].stats.held == 1)
            there = Endpoint(name="chat-serve-0", url=engine, revision="r1", ready=True)
            routers.tell("ml/chat", table(there), {"pod": "127.0.0.1"})
            async with asyncio.timeout(120):
                answer = await asked
            assert answer.status == 200
            await until(lambda: routers.heard(UID)["pod"].stats.table_version == 1)
            await until(lambda: routers.heard(UID)["pod"].stats.revisions[0].requests == 1)
        stats = routers.heard(UID)["pod"].stats
        assert stats.revisions[0].faults == 0
        assert (stats.held, stats.in_flight) == (0, 0)
        # The next operator counts on from what the router holds.
        await routers.close()
        routers = Routers(news.put_nowait, {UID: TOKEN}.__getitem__, port=control)
        routers.tell("ml/chat", table(), {"pod": "127.0.0.1"})
        await until(lambda: routers.heard(UID) and routers.heard(UID)["pod"].stats.endpoints == [])
        held = routers.table(UID)
        assert held is not None
        assert held.version == 2
    finally:
        await routers.close()
