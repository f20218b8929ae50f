"""Leader election by a Lease, as client-go does it (tools/leaderelection).

The election of the ``kubernetes`` package neither releases the Lease at shutdown nor bounds a
renewal that hangs, and writes local time as UTC, so Drakkar has its own. Whether a rival is alive is
judged by how long its record has not changed on our own clock; clocks of machines are not compared.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from drakkar.kube.backoff import Backoff
from drakkar.kube.rest import ApiError, Object, Rest

log = structlog.get_logger(__name__)

TICK = 0.001
"""Seconds. asyncio rings a timer up to its clock's resolution early, so a wait for the rest of a
term must not be shorter than that: it would return at once, with the term not over, for ever."""


class NotLeaderError(Exception):
    """This process must not write: it does not hold the Lease (any more)."""


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Seconds; a leader stops writing ``renew_deadline`` after its last renewal began, which is
    before a rival may take over at ``duration``."""

    duration: float = 15.0
    renew_deadline: float = 10.0
    retry: float = 2.0


class Leader:
    """Holds or seeks one Lease. ``run`` does the work; ``check`` guards every write."""

    def __init__(
        self,
        rest: Rest,
        *,
        namespace: str,
        name: str,
        identity: str,
        times: LeaseTimes | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[bool], None] | None = None,
    ) -> None:
        self.identity = identity
        self._rest = rest
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._path = f"{self._collection}/{name}"
        self._meta = {"name": name, "namespace": namespace}
        self._times = times or LeaseTimes()
        self._clock = clock
        self._on_change = on_change or (lambda _: None)
        self._valid_until = float("-inf")
        self._seen: tuple[str, float] | None = None
        """The rival's record, and when it was first seen."""
        self._lease: Object | None = None
        self._leading = asyncio.Event()
        self._lost = asyncio.Event()
        self._lost.set()

    @property
    def leading(self) -> bool:
        """Whether writes are allowed now."""
        return self._leading.is_set() and self._clock() < self._valid_until

    @property
    def holder(self) -> str | None:
        """Who held the Lease when it was last read; None if nobody did."""
        spec = self._lease["spec"] if self._lease is not None else {}
        return spec.get("holderIdentity") or None

    def check(self) -> None:
        """Raise NotLeaderError unless writes are allowed now."""
        if not self.leading:
            raise NotLeaderError("the Lease is not ours; another process may lead")

    async def acquired(self) -> None:
        """Wait until this process leads."""
        await self._leading.wait()

    async def lost(self) -> None:
        """Wait until this process does not lead."""
        await self._lost.wait()

    async def run(self) -> None:
        """Seek and keep the Lease until cancelled. Does not release it."""
        backoff = Backoff(self._times.retry, self._times.retry)
        try:
            while True:
                await self._round()
                left = self._valid_until - self._clock() if self._leading.is_set() else float("inf")
                await asyncio.sleep(max(TICK, min(backoff.next() * 4 / 3, left)))
                if self._leading.is_set() and self._clock() >= self._valid_until:
                    self._step_down("it could not be renewed in time")
        finally:
            if self._leading.is_set():
                self._step_down("shutting down")

    async def release(self) -> None:
        """Give the Lease away so that a successor need not wait. Call after ``run`` has ended."""
        lease = self._lease
        if lease is None or lease["spec"].get("holderIdentity") != self.identity:
            return
        spec = {
            **lease["spec"],
            "holderIdentity": "",
            "leaseDurationSeconds": 1,
            "renewTime": _now(),
        }
        with suppress(ApiError):
            await self._rest.put(self._path, {**lease, "spec": spec})
            self._lease = None
            log.info("lease released")

    async def _round(self) -> None:
        started = self._clock()
        # A leader's renewal must not outlive its right to write; a candidate has time.
        limit = self._times.renew_deadline
        if self._leading.is_set():
            limit = max(0.01, self._valid_until - started)
        try:
            async with asyncio.timeout(limit):
                held = await self._acquire_or_renew()
        except (ApiError, TimeoutError) as error:
            log.warning("lease not renewed", error=str(error) or "timed out")
            # Our copy may be outdated (409) or the write may have arrived: read it again.
            self._lease = None
            return
        if held:
            self._valid_until = started + self._times.renew_deadline
            if not self._leading.is_set():
                self._lost.clear()
                self._leading.set()
                log.info("leading", identity=self.identity)
                self._on_change(True)
        elif self._leading.is_set():
            self._step_down("another process took it")

    async def _acquire_or_renew(self) -> bool:
        if self._lease is None or not self._leading.is_set():
            try:
                self._lease = await self._rest.get(self._path)
            except ApiError as error:
                if error.status != 404:
                    raise
                body = {
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "metadata": self._meta,
                    "spec": self._spec({}),
                }
                self._lease = await self._rest.post(self._collection, body)
                return True
        spec = self._lease.get("spec") or {}
        if not self._free(spec):
            return False
        self._lease = await self._rest.put(self._path, {**self._lease, "spec": self._spec(spec)})
        return True

    def _free(self, spec: dict[str, Any]) -> bool:
        """Whether the Lease is ours, nobody's, or of a holder that shows no life."""
        holder = spec.get("holderIdentity")
        if not holder or holder == self.identity:
            return True
        record = f"{holder} {spec.get('renewTime')}"
        if self._seen is None or self._seen[0] != record:
            self._seen = (record, self._clock())
        duration = float(spec.get("leaseDurationSeconds") or self._times.duration)
        return self._clock() - self._seen[1] > duration

    def _spec(self, old: dict[str, Any]) -> dict[str, Any]:
        mine = old.get("holderIdentity") == self.identity
        return {
            **old,
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, round(self._times.duration)),
            "acquireTime": old.get("acquireTime") if mine else _now(),
            "renewTime": _now(),
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (not mine and bool(old)),
        }

    def _step_down(self, why: str) -> None:
        self._valid_until = float("-inf")
        self._leading.clear()
        self._lost.set()
        log.warning("not leading any more", why=why)
        self._on_change(False)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
