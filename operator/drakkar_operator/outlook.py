"""What waiting jobs are told besides the reason: their position, and when room is expected.

Both change all the time while the cluster works. They are told when they have changed by much, and
to so many jobs at a time only, so that a long line costs little to keep informed.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from drakkar_operator.model import JobView
from drakkar_operator.reconcile import conditions as cond
from drakkar_operator.scheduling.case import Case
from drakkar_operator.scheduling.forecast import Forecast, differs, forecast
from drakkar_operator.scheduling.queueing import Decision
from drakkar_operator.scheduling.queues import Queues
from drakkar_operator.scheduling.quota_forecast import QuotaForecasts
from drakkar_operator.scheduling.request import Key

FORECAST_SECONDS = 10.0
"""Forecasts are made at most this often."""
MOST_SHARE = 0.02
"""Of the time that passes so much goes to forecasts at most: they are a courtesy."""
MOST_FORECASTS = 8
"""So many different requests get a forecast, those that are judged first."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a waiting job is told besides the reason."""

    position: int
    forecast: Forecast | None = None


class Lookout:
    """Remembers the forecasts of a moment."""

    def __init__(self) -> None:
        self._forecasts: dict[Key, Forecast | None] = {}
        self._due = float("-inf")

    def look(self, case: Case, decisions: Sequence[Decision]) -> bool:
        """Make forecasts for the first waiting gangs, unless there are fresh ones.

        True if there is something to tell.
        """
        if case.now < self._due:
            return False
        started = time.perf_counter()
        before, self._forecasts = self._forecasts, forecasts(case, decisions)
        took = time.perf_counter() - started
        self._due = case.now + max(FORECAST_SECONDS, took / MOST_SHARE)

        def moment(found: Forecast | None) -> float | None:
            return found.at if found is not None else None

        return any(
            differs(moment(before.get(key)), moment(found), case.now)
            for key, found in self._forecasts.items()
        )

    def of(self, decision: Decision) -> Outlook:
        """The outlook of a gang that was not placed."""
        return Outlook(decision.position, self._forecasts.get(decision.key))


def forecasts(case: Case, decisions: Iterable[Decision]) -> dict[Key, Forecast | None]:
    """Forecasts for the first gangs that wait for room or quota; equal requests share one."""
    pending = {each.key: each for each in case.pending}
    known: dict[object, Forecast | None] = {}
    found: dict[Key, Forecast | None] = {}
    quota: QuotaForecasts | None = None
    for decision in decisions:
        gang = pending.get(decision.key)
        if decision.placed is not None or decision.evictions or gang is None:
            continue
        for_quota = decision.unplaced is None
        kind = (gang.queue if for_quota else "", for_quota, gang.request.shape)
        if kind not in known:
            if len(known) >= MOST_FORECASTS:
                continue
            if not for_quota:
                known[kind] = forecast(case.snapshot, gang.request, case.running, case.now)
            else:
                quota = quota or _quota_forecasts(case)
                known[kind] = quota.of(gang)
        found[decision.key] = known[kind]
    return found


def _quota_forecasts(case: Case) -> QuotaForecasts:
    queues = Queues(case.queues)
    return QuotaForecasts(case.snapshot, queues, case.running, case.pending, case.now)


def is_news(job: JobView, decision: Decision, outlook: Outlook, now: float) -> bool:
    """Whether a job that waits was told something else before, or nothing yet."""
    told = cond.find(job.status.conditions, cond.ADMITTED)
    if told is None or told.status != "False" or job.status.pending_reason is None:
        return True
    if told.message != (decision.reason or "")[: cond.MESSAGE_LIMIT]:
        return True
    before = job.status.queue_position
    if before is None or abs(outlook.position - before) > before // 8:
        return True
    old = job.status.expected_start
    new = outlook.forecast.at if outlook.forecast is not None else None
    return differs(old.timestamp() if old is not None else None, new, now)
