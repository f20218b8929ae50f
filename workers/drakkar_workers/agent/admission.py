"""Which heartbeats can be of a gang at all: whatever else reaches its port is refused in a sentence."""

import math

from drakkar.protocol import GangConfig
from drakkar_workers.agent.wire import Heartbeat

EPOCH_LEAP = 1_000_000
"""A joiner's epoch may be above the gang's by this much: no gang has been started more often."""
EPOCH_LIMIT = 1 << 30
"""Highest epoch of a joiner; the ones above, up to the wire's limit, are left for new starts."""
CLOCK_LEAP_SECONDS = 86_400.0
"""A node's clock may be ahead by this much."""


class RefusedError(ValueError):
    """A heartbeat that can't belong to this gang."""


def check(config: GangConfig, epoch: int, beat: Heartbeat, wall: float) -> None:
    """Raises RefusedError. ``epoch`` is the gang's, ``wall`` the time in seconds since the epoch."""
    if beat.uid != config.uid:
        raise RefusedError(
            f"uid {beat.uid!r} is another job's; this is {config.namespace}/{config.job} "
            f"with uid {config.uid!r}"
        )
    if not 0 <= beat.replica < config.replicas:
        raise RefusedError(
            f"replica {beat.replica} is unknown; this gang has replicas 0 to {config.replicas - 1}"
        )
    first = beat.replica * config.processes_per_replica
    last = first + config.processes_per_replica - 1
    told = [status.rank for status in beat.ranks]
    if len(set(told)) != len(told) or any(not first <= rank <= last for rank in told):
        raise RefusedError(
            f"replica {beat.replica} speaks for ranks {told}; it has ranks {first} to {last}"
        )
    limit = min(epoch + EPOCH_LEAP, EPOCH_LIMIT)
    if beat.epoch > limit:
        raise RefusedError(
            f"replica {beat.replica} names epoch {beat.epoch}; this gang is at {epoch} and "
            f"believes none above {limit}"
        )
    # A time that nobody can be later than would keep the place for ever.
    if not (math.isfinite(beat.started) and beat.started <= wall + CLOCK_LEAP_SECONDS):
        raise RefusedError(
            f"replica {beat.replica} says that it started at {beat.started}, in the future"
        )
