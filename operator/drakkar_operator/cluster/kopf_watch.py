"""Runs kopf beside the operator: in a thread with an event loop of its own, restarted if it dies.

kopf takes itself for the owner of its loop: when it ends it cancels every task that began after it,
which would be all of ours. In its own loop it can fail, be stopped late and start again.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Sequence

import kopf
import structlog

from drakkar.kube.backoff import Backoff
from drakkar.kube.connection import Connection
from drakkar.kube.rest import Object
from drakkar_operator import handlers

STOP_SECONDS = 10.0
LOGIN_SECONDS = 30.0
log = structlog.get_logger(__name__)


class _Patience:
    """Delays between tries of kopf's requests: growing, without end."""

    def __iter__(self) -> Iterator[float]:
        yield from (0.5, 1, 2, 3, 5, 8)
        while True:
            yield 10.0


class KopfWatch:
    """``take(type, object)`` and ``take_service`` are called in the loop that ``run`` runs in."""

    def __init__(
        self,
        connection: Connection,
        take: Callable[[str | None, Object], None],
        take_service: Callable[[str | None, Object], None],
        namespaces: Sequence[str] = (),
    ) -> None:
        """``namespaces`` are the ones that are watched; none: all."""
        self._namespaces = tuple(namespaces)
        self._connection = connection
        self._take = take
        self._take_service = take_service
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether kopf runs now."""
        return self._thread is not None and self._thread.is_alive()

    async def run(self) -> None:
        """Keep kopf running until cancelled."""
        backoff = Backoff(base=1.0, cap=30.0)
        loop = asyncio.get_running_loop()
        while True:
            ended = asyncio.Event()
            stop = threading.Event()
            self._thread = threading.Thread(
                target=self._main, args=(loop, stop, ended), name="kopf", daemon=True
            )
            started = loop.time()
            self._thread.start()
            try:
                await ended.wait()
            finally:
                stop.set()
                if not ended.is_set():
                    await asyncio.shield(asyncio.to_thread(self._thread.join, STOP_SECONDS))
            if loop.time() - started > 60.0:
                backoff.reset()
            delay = backoff.next()
            log.warning("kopf ended, starting it again", seconds=round(delay, 1))
            await asyncio.sleep(delay)

    def _main(
        self, loop: asyncio.AbstractEventLoop, stop: threading.Event, ended: asyncio.Event
    ) -> None:
        registry = kopf.OperatorRegistry()

        def take(kind: str | None, raw: Object) -> None:
            loop.call_soon_threadsafe(self._take, kind, raw)

        def take_service(kind: str | None, raw: Object) -> None:
            loop.call_soon_threadsafe(self._take_service, kind, raw)

        def login() -> kopf.ConnectionInfo:
            # kopf calls it in a worker thread: at first and when its token was refused.
            return asyncio.run_coroutine_threadsafe(self._login(), loop).result(LOGIN_SECONDS)

        handlers.register(
            registry, take=take, take_service=take_service, login=login, configure=_configure
        )
        settings = kopf.OperatorSettings()
        _configure(settings)
        try:
            kopf.run(
                registry=registry,
                settings=settings,
                standalone=True,
                clusterwide=not self._namespaces,
                namespaces=self._namespaces,
                stop_flag=stop,
                loop=asyncio.new_event_loop(),
            )
        except Exception as error:
            log.error("kopf failed", error=repr(error)[:500])
        finally:
            if not loop.is_closed():
                loop.call_soon_threadsafe(ended.set)

    async def _login(self) -> kopf.ConnectionInfo:
        header = None
        if self._connection.authorization is not None:
            header = await self._connection.authorization()
        scheme, _, token = (header or "").partition(" ")
        return kopf.ConnectionInfo(
            server=self._connection.server,
            ca_path=self._connection.ca_file,
            certificate_path=self._connection.cert_file,
            private_key_path=self._connection.key_file,
            insecure=not self._connection.verify,
            scheme=scheme or None,
            token=token or None,
        )


def _configure(settings: kopf.OperatorSettings) -> None:
    """No events, no peering, no look for new kinds, no finalizers: kopf watches and nothing else."""
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.networking.request_timeout = 30.0
    settings.networking.error_backoffs = _Patience()
    settings.watching.server_timeout = 120  # the API server takes whole seconds only
    settings.watching.client_timeout = 150
    settings.watching.connect_timeout = 10
    settings.queueing.error_delays = (1, 1, 2, 3, 5, 8)
    # What matters of its troubles is that it ended, and why; that is logged here.
    logging.getLogger("kopf").setLevel(logging.CRITICAL)
