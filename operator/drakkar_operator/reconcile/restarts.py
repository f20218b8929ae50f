"""The record of a job's interruptions and what it says about going on."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from drakkar.v1alpha1.trainingjob import FaultTolerance, Restart

KEPT = 50
RECENT_SECONDS = 600.0
AVOID_SECONDS = 30.0
BACKOFF_LIMIT_SECONDS = 300.0
NODE_FAULTS = frozenset({"ProcessHung", "ProcessStuck", "ForkServerLost", "AgentError"}) | {
    "SilentCorruption"
}
"""What is rather a node's fault than the code's, when it comes again and again in one place."""
FAULT_HALF_LIFE_SECONDS = 1800.0
FAULTS_ALLOWED = 2.5
"""Faults on one node, each by its age, from which on it is avoided."""


def merge(known: Sequence[Restart], seen: Iterable[Restart]) -> tuple[list[Restart], list[Restart]]:
    """(all restarts, those that are new), told apart by id.

    Once the record is full the oldest fall out of it; a report that still tells of them must not
    bring them back as news, so then only what is younger than the oldest kept one is new.
    """
    ids = {restart.id for restart in known}
    horizon = known[0].time if len(known) >= KEPT else None
    new: list[Restart] = []
    for restart in seen:
        if restart.id in ids or (horizon is not None and restart.time <= horizon):
            continue
        ids.add(restart.id)
        new.append(restart)
    together = sorted([*known, *new], key=lambda restart: restart.time)
    return together[-KEPT:], new


def avoided_nodes(restarts: Sequence[Restart], now: float) -> frozenset[str]:
    """Nodes that lately refused or evicted a pod, or broke a device under it, and those where the job
    fails repeatedly.

    Of the first the snapshot may not show why yet. Of the second each fault counts half as much
    after ``FAULT_HALF_LIFE_SECONDS``.
    """
    lately = {
        restart.node
        for restart in restarts
        if restart.reason in ("Refused", "PodEvicted", "DeviceFault")
        and restart.node
        and now - restart.time.timestamp() < AVOID_SECONDS
    }
    faults: dict[str, float] = {}
    for restart in restarts:
        if restart.reason in NODE_FAULTS and restart.node:
            age = max(0.0, now - restart.time.timestamp())
            weight = 0.5 ** (age / FAULT_HALF_LIFE_SECONDS)
            faults[restart.node] = faults.get(restart.node, 0.0) + weight
    return frozenset(lately | {node for node, sum_ in faults.items() if sum_ >= FAULTS_ALLOWED})


def backoff_left(restarts: Sequence[Restart], tolerance: FaultTolerance, now: float) -> float:
    """Seconds to wait before a pod is replaced: doubled with each counted loss of late."""
    counted = [
        restart.time.timestamp()
        for restart in restarts
        if restart.counted
        and restart.scope != "process"
        and now - restart.time.timestamp() < RECENT_SECONDS
    ]
    if not counted:
        return 0.0
    wait = tolerance.backoff_seconds * 2.0 ** min(len(counted) - 1, 16)
    return max(0.0, counted[-1] + min(wait, BACKOFF_LIMIT_SECONDS) - now)


def at(now: float) -> datetime:
    """A time in seconds since the epoch as Kubernetes writes it: UTC, whole seconds."""
    return datetime.fromtimestamp(int(now), UTC)
