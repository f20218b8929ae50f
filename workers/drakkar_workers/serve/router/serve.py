"""The life of a router: listen, forward, drain, end."""

import asyncio
import contextlib
import logging
import random
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web

from drakkar.routing import ROUTER_CONTROL_PORT, ROUTER_PORT, RouteTable
from drakkar_workers.serve.router import scrape
from drakkar_workers.serve.router.app import Router, application
from drakkar_workers.serve.router.control import control_application
from drakkar_workers.serve.router.fleet import Fleet
from drakkar_workers.serve.router.forward import Forwarder
from drakkar_workers.serve.router.gate import Gate
from drakkar_workers.serve.router.record import Record
from drakkar_workers.serve.server.limits import Clients, follow_keys, read_keys
from drakkar_workers.serve.tracing import sending

CONNECT_SECONDS = 3.0
KEEPALIVE_SECONDS = 4.0
"""Less than engines keep idle connections (uvicorn: 5 s), so that none is used as it closes."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """How a router listens and ends."""

    uid: str
    """Of the InferenceService."""
    token_digest: str | None = None
    """Of the token that its operator shows; None: nobody sends a table."""
    host: str | None = None
    port: int = ROUTER_PORT
    control_port: int = ROUTER_CONTROL_PORT
    table: RouteTable | None = None
    """Fixed replicas, where no operator sends a table."""
    keys: Path | None = None
    """Who may ask; None: engines check keys themselves."""
    stall: float = 120.0
    """A stream that says nothing for so long is broken off."""
    drain_delay: float = 5.0
    """After SIGTERM requests are taken for so long still: load balancers learn late."""
    drain_timeout: float = 300.0


@dataclass(frozen=True, slots=True)
class Running:
    """A router that listens."""

    router: Router
    port: int
    control_port: int


@contextlib.asynccontextmanager
async def routing(settings: RouterSettings) -> AsyncIterator[Running]:
    """Listen as long as the context lasts. Raises ConfigError or OSError."""
    clients = None if settings.keys is None else Clients(read_keys(settings.keys))
    fleet, record, chance = Fleet(settings.uid), Record(), random.Random()
    if settings.table is not None:
        fleet.apply(settings.table)
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=("User-Agent", "Content-Type", "Accept"),
            )
        )
        gate = Gate(fleet, record)
        forwarder = Forwarder(fleet, gate, record, session, stall=settings.stall, chance=chance)
        router = Router(forwarder, clients)
        host = settings.host
        port = await _listen(stack, application(router), host, settings.port)
        control_app = control_application(router, settings.token_digest)
        control = await _listen(stack, control_app, host, settings.control_port)
        stack.callback(asyncio.create_task(scrape.follow(fleet, session)).cancel)
        if settings.keys is not None and clients is not None:
            stack.callback(asyncio.create_task(follow_keys(settings.keys, clients)).cancel)
        yield Running(router, port, control)


async def serve(settings: RouterSettings) -> int:
    """Route until SIGTERM or SIGINT; an exit status.

    Raises ConfigError or OSError before anything listens.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with routing(settings) as running:
        logger.info("routing on port %d, control on port %d", running.port, running.control_port)
        await stop.wait()
        await _drain(running.router, settings)
    return 0


async def _listen(
    stack: contextlib.AsyncExitStack, app: web.Application, host: str | None, port: int
) -> int:
    # A client that leaves cancels its handler, which closes the connection to the replica.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, host, port, backlog=1024, reuse_address=True).start()
    return int(runner.addresses[0][1])


async def _drain(router: Router, settings: RouterSettings) -> None:
    """Finish what runs; not ready from the start, so that nobody sends more."""
    router.draining = True
    logger.info("draining %d requests", router.forwarder.record.load.level)
    await asyncio.sleep(settings.drain_delay)
    router.closed = True
    try:
        async with asyncio.timeout(settings.drain_timeout):
            await router.idle.wait()
    except TimeoutError:
        left = router.forwarder.record.load.level
        logger.warning("%d requests did not end within the drain time", left)


def run(settings: RouterSettings) -> int:
    """Route in a loop of its own; an exit status."""
    with sending("drakkar-router"):
        try:
            import uvloop
        except ImportError:
            return asyncio.run(serve(settings))
        return uvloop.run(serve(settings))
