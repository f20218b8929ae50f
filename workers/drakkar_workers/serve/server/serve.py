"""The life of a server: listen, load, serve, drain, end."""

import asyncio
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from aiohttp import web

from drakkar_workers.serve.batch.execute import execute
from drakkar_workers.serve.batch.runner import Runner
from drakkar_workers.serve.engine.build import EngineSettings
from drakkar_workers.serve.server.app import application
from drakkar_workers.serve.server.engine_client import SILENCE_SECONDS, EngineClient
from drakkar_workers.serve.server.errors import ApiError
from drakkar_workers.serve.server.limits import Clients, follow_keys, read_keys
from drakkar_workers.serve.server.operations import adapters_below
from drakkar_workers.serve.server.service import Service
from drakkar_workers.serve.tracing import sending

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How the server listens and ends."""

    engine: EngineSettings
    host: str | None = None
    port: int = 8000
    names: list[str] = field(default_factory=list)
    """What clients call the model; empty: the name of its folder."""
    keys: Path | None = None
    adapters: Path | None = None
    files: Path | None = None
    """Folder of files and batches, which all replicas of a service share."""
    batch_concurrency: int = 16
    timeout: float = 600.0
    silence: float = SILENCE_SECONDS
    """Without a word of the engine it counts as dead after so long."""
    drain_delay: float = 5.0
    """After SIGTERM requests are taken for so long still: load balancers learn late."""
    drain_timeout: float = 300.0


async def serve(settings: ServerSettings, listening: Callable[[int], None] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, or until the engine dies; an exit status.

    ``listening`` is told the port. Raises ConfigError or OSError before anything listens.
    """
    folder = Path(settings.engine.model)
    keys = None if settings.keys is None else read_keys(settings.keys)
    engine = EngineClient(settings.engine, silence=settings.silence)
    service = Service(
        folder,
        names=settings.names or [folder.resolve().name],
        engine=engine,
        clients=Clients(keys),
        timeout=settings.timeout,
        adapters_folder=settings.adapters,
    )
    beside: list[asyncio.Task[None]] = []
    if settings.keys is not None:
        beside.append(asyncio.create_task(follow_keys(settings.keys, service.clients)))
    if settings.files is not None:
        settings.files.mkdir(parents=True, exist_ok=True)
        batches = Runner(
            settings.files,
            partial(execute, service),
            stopping=lambda: service.draining,
            concurrency=settings.batch_concurrency,
        )
        beside.append(asyncio.create_task(batches.run()))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # A client that leaves cancels its handler, which drops its requests.
    runner = web.AppRunner(
        application(service, settings.files),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=1.0,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port, backlog=1024, reuse_address=True)
        await site.start()
        port = int(runner.addresses[0][1])
        if listening is not None:
            listening(port)
        await engine.start()
        loading = asyncio.create_task(_load(service, port))
        died = asyncio.create_task(engine.died.wait())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({died, stopped}, return_when=asyncio.FIRST_COMPLETED)
        loading.cancel()
        if stopped.done() and not died.done():
            await _drain(service, settings, died)
        for task in (died, stopped):
            task.cancel()
        if engine.failure is not None:
            logger.error("the engine has died: %s", engine.failure)
            # Those who wait get their errors before the listener goes.
            await asyncio.sleep(0.2)
            return 1
        return 0
    finally:
        for each in beside:
            each.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await runner.cleanup()
        await engine.close()


async def _load(service: Service, port: int) -> None:
    try:
        ready = await service.engine.loaded()
    except ApiError:
        return
    logger.info(
        "serving %s on port %d: %s, %s, %d tokens of context, %d blocks, loaded in %.1f s",
        service.names[0], port, ready.backend, ready.dtype, ready.max_length, ready.blocks,
        ready.load_seconds,
    )  # fmt: skip
    if service.adapters_folder is None:
        return
    # Adapters that lie in the folder are there after every restart.
    for name in adapters_below(service.adapters_folder):
        path = str((service.adapters_folder / name).resolve())
        try:
            await service.engine.adapter(name, path)
            service.adapters[name] = path
            logger.info("adapter %s is loaded", name)
        except ApiError as error:
            logger.error("adapter %s: %s", name, error.message)


async def _drain(service: Service, settings: ServerSettings, died: "asyncio.Task[bool]") -> None:
    """Finish what runs; not ready from the start, so that nobody sends more."""
    service.draining = True
    logger.info("draining %d requests", service.engine.in_flight)
    await asyncio.wait({died}, timeout=settings.drain_delay)
    service.closed = True
    idle = asyncio.create_task(service.idle.wait())
    wanted = {died, idle}
    await asyncio.wait(wanted, timeout=settings.drain_timeout, return_when=asyncio.FIRST_COMPLETED)
    if not idle.done():
        idle.cancel()
        logger.warning("%d requests did not end within the drain time", service.engine.in_flight)


def run(settings: ServerSettings) -> int:
    """Serve in a loop of its own; an exit status."""
    with sending("drakkar-engine"):
        try:
            import uvloop
        except ImportError:
            return asyncio.run(serve(settings))
        return uvloop.run(serve(settings))
