"""One scheduling cycle over all gangs that wait: who is placed, who must go, who waits for what.

Gangs have their turns by fair share (``turns``), within the limits of their queues (``ledger``).
The first of a queue that finds no room displaces others if the rules allow it (``candidates``,
``preemption``), or else gets a hold on the room that is free first (``backfill``); those behind it
may pass it as long as they don't delay it.
"""

from collections.abc import Iterable, Mapping, Sequence

from drakkar_operator.model import QueueView
from drakkar_operator.scheduling.cycle import Cycle
from drakkar_operator.scheduling.decision import Decision, Hold, Unplaced
from drakkar_operator.scheduling.queues import Queues
from drakkar_operator.scheduling.request import Key
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.turns import Recent
from drakkar_operator.scheduling.workload import Pending, Running

__all__ = ["Decision", "schedule"]


def schedule(
    snapshot: Snapshot,
    pending: Sequence[Pending],
    queues: Mapping[str, QueueView],
    running: Iterable[Running] = (),
    *,
    others: Iterable[Pending] = (),
    holds: Iterable[Hold] = (),
    known: Mapping[Key, Unplaced] | None = None,
    recent: Recent | None = None,
    now: float = 0.0,
) -> list[Decision]:
    """Decide on every pending gang, each in its turn; it sees the room that those before it left.

    What running gangs request in total, and those that lost ranks, counts for their queue and its
    parents: a repair is not charged again. Requests of the same shape are judged once: what did
    not fit still doesn't. ``others`` are gangs with a place that need nothing of this cycle but
    count as well. ``holds`` are those of the last cycle, ``known`` verdicts of earlier
    cycles that hold still (``verdicts``), ``recent`` what the queues used before.
    """
    cycle = Cycle(snapshot, pending, Queues(queues), list(running), list(others), recent or {}, now)
    cycle.recall(holds, known or {})
    return cycle.decide()
