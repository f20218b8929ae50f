"""Tells routers their table and hears what they saw, by long polls to each router's pod.

A router is another process in somebody's cluster: its answers are bounded in size, validated, and
believed only about its own service.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import aiohttp
import structlog
from pydantic import ValidationError

from drakkar.kube.backoff import Backoff
from drakkar.routing import (
    EXCHANGE_PATH,
    ROUTER_CONTROL_PORT,
    STATS_LIMIT_BYTES,
    RouterStats,
    RouteTable,
)
from drakkar_operator.reconcile.serving.traffic import Heard

WAIT_SECONDS = 2.0
"""Of one poll: also how old figures may get."""
RHYTHM_SECONDS = 0.25
"""Between two polls of a router that always has news."""
log = structlog.get_logger(__name__)


class AnswerError(Exception):
    """An answer that is none of this service's router."""


@dataclass(slots=True)
class _Router:
    url: str
    task: asyncio.Task[None] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """The table is another than the one that the poll under way has sent."""


@dataclass(slots=True)
class _Service:
    key: str
    table: RouteTable
    routers: dict[str, _Router] = field(default_factory=dict)
    """By pod UID."""
    heard: dict[str, Heard] = field(default_factory=dict)


class Routers:
    """Per service UID. ``on_news(key)`` asks for a reconcile, ``token(uid)`` is what routers of a
    service know the operator by."""

    def __init__(
        self,
        on_news: Callable[[str], None],
        token: Callable[[str], str],
        *,
        port: int = ROUTER_CONTROL_PORT,
        wait: float = WAIT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_news = on_news
        self._token = token
        self._port = port
        self._wait = wait
        self._clock = clock
        self._services: dict[str, _Service] = {}
        self._session: aiohttp.ClientSession | None = None

    def table(self, uid: str) -> RouteTable | None:
        """The newest table of a service."""
        found = self._services.get(uid)
        return found.table if found else None

    def heard(self, uid: str) -> Mapping[str, Heard]:
        """What each router pod said last, by pod UID."""
        found = self._services.get(uid)
        return dict(found.heard) if found else {}

    def tell(self, key: str, table: RouteTable, pods: Mapping[str, str]) -> None:
        """Make this the service's table, and keep polling these routers (pod UID -> IP).

        The version of ``table`` is counted on here whenever it says something else than before.
        """
        service = self._services.get(table.uid)
        if service is None:
            service = self._services[table.uid] = _Service(key, table)
        elif table != service.table.model_copy(update={"version": table.version}):
            self._renew(service, table, service.table.version + 1)
        for pod_uid in service.routers.keys() - pods.keys():
            self._drop(service, pod_uid)
        for pod_uid, ip in pods.items():
            host = f"[{ip}]" if ":" in ip else ip
            url = f"http://{host}:{self._port}{EXCHANGE_PATH}"
            known = service.routers.get(pod_uid)
            if known is not None and known.url != url:
                self._drop(service, pod_uid)
                known = None
            if known is None:
                router = service.routers[pod_uid] = _Router(url)
                router.task = asyncio.create_task(
                    self._poll(service, pod_uid, router), name=f"router {key}"
                )

    def forget(self, uid: str) -> None:
        """The service is gone."""
        service = self._services.pop(uid, None)
        for pod_uid in list(service.routers) if service else ():
            assert service is not None
            self._drop(service, pod_uid)

    async def close(self) -> None:
        """Stop all polls."""
        tasks = [
            router.task
            for service in self._services.values()
            for router in service.routers.values()
            if router.task is not None
        ]
        for uid in list(self._services):
            self.forget(uid)
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _renew(self, service: _Service, table: RouteTable, version: int) -> None:
        service.table = table.model_copy(update={"version": version})
        for router in service.routers.values():
            router.changed.set()

    def _drop(self, service: _Service, pod_uid: str) -> None:
        router = service.routers.pop(pod_uid)
        service.heard.pop(pod_uid, None)
        if router.task is not None:
            router.task.cancel()

    async def _poll(self, service: _Service, pod_uid: str, router: _Router) -> None:
        backoff = Backoff(base=0.25, cap=5.0)
        after, warned = -1, False
        while True:
            started = self._clock()
            router.changed.clear()
            ask = asyncio.create_task(self._ask(service.table, router.url, after))
            news = asyncio.create_task(router.changed.wait())
            try:
                await asyncio.wait([ask, news], return_when=asyncio.FIRST_COMPLETED)
                if not ask.done():
                    # The next exchange ends this one; what it would have said comes with that.
                    continue
                stats = ask.result()
                if stats.uid != service.table.uid:
                    raise AnswerError("it speaks for another service")
            except (aiohttp.ClientError, TimeoutError, OSError):
                # Not up yet, or going down: the pod's own state says which.
                await asyncio.sleep(backoff.next())
                continue
            except AnswerError as error:
                if not warned:
                    warned = True
                    log.warning("router's answer rejected", service=service.key, error=str(error))
                await asyncio.sleep(10 * backoff.next())
                continue
            finally:
                ask.cancel()
                news.cancel()
            backoff.reset()
            known = service.heard.get(pod_uid)
            says_more = known is None or _gist(known.stats) != _gist(stats)
            after = stats.version
            held = stats.table_version
            if held is not None and held > service.table.version:
                # A table of the operator that led before: what this one says comes after it.
                self._renew(service, service.table, held + 1)
            service.heard[pod_uid] = Heard(stats, self._clock())
            if says_more:
                self._on_news(service.key)
            await asyncio.sleep(max(0.0, RHYTHM_SECONDS - (self._clock() - started)))

    async def _ask(self, table: RouteTable, url: str, after: int) -> RouterStats:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30.0),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        async with self._session.post(
            url,
            params={"after": str(after), "wait": str(self._wait)},
            data=table.model_dump_json(by_alias=True, exclude_none=True),
            headers={
                "Content-Type": "application/json",
                "Authorization": f"Bearer {self._token(table.uid)}",
            },
            timeout=aiohttp.ClientTimeout(total=self._wait + 5.0, sock_connect=3.0),
            allow_redirects=False,
        ) as response:
            if response.status != 200:
                raise AnswerError(f"HTTP {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > STATS_LIMIT_BYTES:
                    raise AnswerError(f"more than {STATS_LIMIT_BYTES} bytes")
        try:
            return RouterStats.model_validate_json(bytes(body))
        except ValidationError as error:
            raise AnswerError(
                f"{error.error_count()} fields are wrong: {error.errors()[0]['msg']}"
            ) from None


def _gist(stats: RouterStats) -> tuple[object, ...]:
    """What a service is looked at for; a router that idles says the same again and again."""
    done = [(one.name, one.requests) for one in stats.revisions]
    return stats.instance, stats.table_version, stats.held, stats.in_flight, done
