"""Whether a canary is promoted, taken back or watched."""

import pytest

from drakkar.routing import LATENCY_BOUNDS, Histogram
from drakkar.v1alpha1.serving import Canary
from drakkar_operator.reconcile.serving.canary import Outcomes, judge

SETTINGS = Canary(weight=20, seconds=60, min_requests=20, max_error_share=0.05)


def latencies(bucket: int, count: int = 40) -> Histogram:
    counts = [0] * (len(LATENCY_BOUNDS) + 1)
    counts[bucket] = count
    return Histogram(counts=counts)


@pytest.mark.parametrize(
    ("new", "stable", "seconds", "action"),
    [
        (Outcomes(), Outcomes(100), 30, "watch"),
        (Outcomes(19), Outcomes(100), 600, "watch"),
        (Outcomes(20), Outcomes(100), 59, "watch"),
        (Outcomes(20), Outcomes(100), 60, "promote"),
        (Outcomes(20), Outcomes(), 60, "promote"),
        # Before so many requests only what is clear counts.
        (Outcomes(19, 9), Outcomes(100), 10, "watch"),
        (Outcomes(19, 10), Outcomes(100), 10, "rollback"),
        (Outcomes(3, 3), Outcomes(), 10, "rollback"),
        (Outcomes(2, 2), Outcomes(100), 10, "watch"),
        (Outcomes(19, 19), Outcomes(100, 90), 10, "watch"),
        (Outcomes(20, 2), Outcomes(100), 60, "promote"),
        (Outcomes(20, 3), Outcomes(100), 10, "rollback"),
        # The stable revision fails as much: it is not the new one's fault.
        (Outcomes(20, 3), Outcomes(100, 15), 60, "promote"),
        (Outcomes(1000, 50), Outcomes(100), 60, "promote"),
        (Outcomes(1000, 51), Outcomes(100), 60, "rollback"),
        (Outcomes(40, 0, latencies(7)), Outcomes(40, 0, latencies(5)), 5, "rollback"),
        (Outcomes(40, 0, latencies(5)), Outcomes(40, 0, latencies(5)), 60, "promote"),
        (Outcomes(40, 0, latencies(4)), Outcomes(40, 0, latencies(7)), 60, "promote"),
        # Too few to compare.
        (Outcomes(40, 0, latencies(9, 19)), Outcomes(40, 0, latencies(5)), 5, "watch"),
    ],
)
def test_verdicts(new: Outcomes, stable: Outcomes, seconds: float, action: str) -> None:
    verdict = judge(SETTINGS, new, stable, seconds=seconds)
    assert verdict.action == action
    assert verdict.message or action == "watch"


def test_servers_that_crash_are_taken_back_without_a_request() -> None:
    crashing = judge(SETTINGS, Outcomes(), Outcomes(), seconds=0, crashes=3, ready=False)
    assert crashing.action == "rollback"
    assert "3 times" in crashing.message
    assert judge(SETTINGS, Outcomes(), Outcomes(), seconds=0, crashes=3).action == "watch"


def test_it_stays_where_nobody_wants_it_promoted() -> None:
    manual = SETTINGS.model_copy(update={"auto_promote": False})
    assert judge(manual, Outcomes(1000), Outcomes(1000), seconds=1e6).action == "watch"
