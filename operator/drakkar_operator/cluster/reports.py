"""What the coordinators of gangs report, gathered by long polls.

An agent is somebody else's container: its answers are bounded in size, validated, and believed only
about its own pod and job.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
import structlog
from pydantic import ValidationError

from drakkar.constants import AGENT_PORT
from drakkar.kube.backoff import Backoff
from drakkar.protocol import REPORT_LIMIT_BYTES, Report
from drakkar_operator.metrics import Metrics

WAIT_SECONDS = 5.0
"""Of one long poll: also the longest that a heartbeat's age is out of date."""
POLLS_PER_SECOND = 400.0
"""Of all gangs together: with many, each is asked less often."""
PROGRESS_SECONDS = 2.0
PROGRESS_PER_SECOND = 50.0
"""Mere progress that is passed on, all gangs together: each may cost a write of a status."""
log = structlog.get_logger(__name__)


class ReportError(Exception):
    """An answer that is no report of the pod that was asked."""


@dataclass(slots=True)
class _Gang:
    key: str
    pod_uid: str
    url: str
    task: asyncio.Task[None] | None = None
    last_progress: float = float("-inf")


def urgent(old: Report | None, new: Report) -> bool:
    """Whether a report says more than progress: it may change what has to be done."""
    if old is None or old.pod_uid != new.pod_uid:
        return True
    return (
        old.state != new.state
        or old.epoch != new.epoch
        or old.failure != new.failure
        or len(old.restarts) != len(new.restarts)
        or [c.path for c in old.checkpoints] != [c.path for c in new.checkpoints]
        or [(m.pod, m.state) for m in old.members] != [(m.pod, m.state) for m in new.members]
    )


class Reports:
    """Newest report per job UID; keys are "namespace/name".

    ``on_news(key, delay)`` asks for a reconcile in ``delay`` seconds.
    """

    def __init__(
        self,
        on_news: Callable[[str, float], None],
        metrics: Metrics,
        *,
        port: int = AGENT_PORT,
        wait: float = WAIT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_news = on_news
        self._metrics = metrics
        self._port = port
        self._wait = wait
        self._clock = clock
        self._gangs: dict[str, _Gang] = {}
        self._newest: dict[str, tuple[Report, float]] = {}
        self._session: aiohttp.ClientSession | None = None

    def newest(self, uid: str) -> Report | None:
        """The last report of a job's coordinator."""
        found = self._newest.get(uid)
        return found[0] if found else None

    def age(self, uid: str) -> float | None:
        """Seconds since the coordinator last answered; None if it never did."""
        found = self._newest.get(uid)
        return self._clock() - found[1] if found else None

    def follow(self, key: str, uid: str, pod_uid: str, ip: str) -> None:
        """Poll this coordinator until told otherwise; a no-op if it is polled already."""
        host = f"[{ip}]" if ":" in ip else ip
        url = f"http://{host}:{self._port}/v1/report"
        gang = self._gangs.get(uid)
        if gang is not None:
            if (gang.pod_uid, gang.url) == (pod_uid, url):
                return
            self.stop(uid)
        gang = _Gang(key, pod_uid, url)
        gang.task = asyncio.create_task(self._poll(uid, gang), name=f"reports {key}")
        self._gangs[uid] = gang

    def stop(self, uid: str) -> None:
        """Poll no more; what was reported stays known."""
        gang = self._gangs.pop(uid, None)
        if gang is not None and gang.task is not None:
            gang.task.cancel()

    def forget(self, uid: str) -> None:
        """The job is gone."""
        self.stop(uid)
        self._newest.pop(uid, None)

    async def close(self) -> None:
        """Stop all polls."""
        tasks = [gang.task for gang in self._gangs.values() if gang.task is not None]
        for uid in list(self._gangs):
            self.stop(uid)
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _poll(self, uid: str, gang: _Gang) -> None:
        backoff = Backoff(base=0.25, cap=10.0)
        after = -1
        warned = False
        while True:
            started = self._clock()
            try:
                report = await self._ask(gang.url, after)
                if report.uid != uid or report.pod_uid != gang.pod_uid:
                    raise ReportError("it speaks for another job or pod")
            except (aiohttp.ClientError, TimeoutError, OSError):
                # Not up yet, or going down: the pod's own state says which.
                self._metrics.reports.labels("unreachable").inc()
                await asyncio.sleep(backoff.next())
                continue
            except ReportError as error:
                self._metrics.reports.labels("rejected").inc()
                if not warned:
                    warned = True
                    log.warning("report rejected", job=gang.key, error=str(error))
                await asyncio.sleep(10 * backoff.next())
                continue
            self._metrics.reports.labels("ok").inc()
            backoff.reset()
            after = report.version
            self._take(uid, gang, report)
            # Reports may change with every step; ask in a rhythm that all gangs together can bear.
            rhythm = max(0.25, len(self._gangs) / POLLS_PER_SECOND)
            await asyncio.sleep(max(0.0, rhythm - (self._clock() - started)))

    def _take(self, uid: str, gang: _Gang, report: Report) -> None:
        now = self._clock()
        old = self.newest(uid)
        self._newest[uid] = (report, now)
        if urgent(old, report):
            gang.last_progress = now
            self._on_news(gang.key, 0.0)
        elif old is not None and old.version != report.version:
            pause = max(PROGRESS_SECONDS, len(self._gangs) / PROGRESS_PER_SECOND)
            if now >= gang.last_progress:
                # Later reports until then are covered by the same reconcile.
                delay = max(0.0, gang.last_progress + pause - now)
                gang.last_progress = now + delay
                self._on_news(gang.key, delay)

    async def _ask(self, url: str, after: int) -> Report:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30.0),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        timeout = aiohttp.ClientTimeout(total=self._wait + 5.0, sock_connect=3.0)
        async with self._session.get(
            url,
            params={"after": str(after), "wait": str(self._wait)},
            timeout=timeout,
            allow_redirects=False,
        ) as response:
            if response.status != 200:
                raise ReportError(f"HTTP {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > REPORT_LIMIT_BYTES:
                    raise ReportError(f"more than {REPORT_LIMIT_BYTES} bytes")
        try:
            return Report.model_validate_json(bytes(body))
        except ValidationError as error:
            raise ReportError(
                f"{error.error_count()} fields are wrong: {error.errors()[0]['msg']}"
            ) from None
