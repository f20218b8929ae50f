"""Where a job's time went, from its creation on: the operator's part before the gang's own books.

The gang's coordinator keeps books that its successors go on with. Where a whole gang was lost they
begin anew: then the sums so far stay as ``earlier``, and what passed in between is waiting (until
the gang had a place again) or recovery. The parts always add up to the whole.
"""

from collections.abc import Sequence

from drakkar.protocol import BOOKS, LedgerState, Recovery
from drakkar.v1alpha1.trainingjob import Goodput, Restart
from drakkar_operator.render.pods import GRACE_SECONDS

CLOCK_SECONDS = 2.0
"""Successive coordinators may tell the begin of the same books so differently."""
PARTS = ("queue", *BOOKS)
NOTICE_SECONDS = 60.0
"""A fault is on record at the latest so long after the last step before it."""


def account(
    old: Goodput | None, created: float, placed: float | None, books: LedgerState
) -> Goodput:
    """The sums as of ``books.at``. Times are seconds since the epoch.

    ``created``: of the job; ``placed``: when its gang got its place, None if that is unknown.
    """
    if old is not None and abs(old.books_since - books.since) < CLOCK_SECONDS:
        earlier = old.earlier
    else:
        earlier = _before(old, created, placed, books.since)
    parts = {name: earlier.get(name, 0.0) for name in PARTS}
    for book in BOOKS:
        parts[book] += getattr(books, f"{book}_seconds")
    wall = sum(parts.values())
    return Goodput(
        ratio=round(parts["productive"] / wall, 4) if wall > 0 else 0.0,
        wall_seconds=round(wall, 1),
        books_since=books.since,
        earlier=earlier,
        **{f"{name}_seconds": round(value, 1) for name, value in parts.items()},
    )


def _before(
    old: Goodput | None, created: float, placed: float | None, since: float
) -> dict[str, float]:
    """Sums until the newest books begin."""
    if old is None:
        sums, until, then = dict.fromkeys(PARTS, 0.0), created, "start"
    else:
        sums = {name: float(getattr(old, f"{name}_seconds")) for name in PARTS}
        until, then = created + old.wall_seconds, "recovery"
    gap = max(0.0, since - until)
    waited = min(gap, max(0.0, (placed if placed is not None else until) - until))
    sums["queue"] += waited
    sums[then] += gap - waited
    return sums


def sentence(goodput: Goodput) -> str:
    """For events and summaries: 'goodput 91 % of 312 s (recovery 4 %, checkpoint 2 %)'."""
    wall = goodput.wall_seconds
    if wall <= 0:
        return "goodput unknown"
    shares = {
        name: getattr(goodput, f"{name}_seconds") / wall for name in PARTS if name != "productive"
    }
    told = sorted(((v, k) for k, v in shares.items() if v >= 0.005), reverse=True)
    rest = ", ".join(f"{name} {share:.0%}" for share, name in told)
    return f"goodput {goodput.ratio:.0%} of {wall:.0f} s" + (f" ({rest})" if rest else "")


def with_losses(restarts: Sequence[Restart], recoveries: Sequence[Recovery]) -> list[Restart]:
    """The restarts, each with what it cost once the training goes on.

    One recovery may follow several faults: it is the last one's, and the others cost nothing more.
    Pods that leave in order train on after their loss is on record. A gang that was lost as a whole
    knows of no step before: it was away since its loss.
    """
    found = list(restarts)
    for recovery in recoveries:
        of_it = [
            index
            for index, restart in enumerate(found)
            if restart.seconds_lost is None and _ended_by(restart, recovery)
        ]
        for index in of_it:
            last = index == of_it[-1]
            cost = recovery.seconds + recovery.seconds_lost
            if recovery.whole:
                cost = (recovery.time - found[index].time).total_seconds()
            found[index] = found[index].model_copy(
                update={
                    "seconds_lost": round(cost, 1) if last else 0.0,
                    "steps_lost": recovery.steps_lost if last else 0,
                    "resumed_from": recovery.source,
                }
            )
    return found


def _ended_by(restart: Restart, recovery: Recovery) -> bool:
    """Whether this recovery is from what this restart is about."""
    then, since = restart.time.timestamp(), recovery.since.timestamp()
    if restart.time > recovery.time:
        return False
    if recovery.whole:
        return then <= since + 1
    noticed = max(NOTICE_SECONDS, recovery.seconds)
    return since - GRACE_SECONDS - 1 <= then <= since + noticed
