"""Whether a new revision is promoted, taken back or watched further. Pure."""

from dataclasses import dataclass, field
from typing import Literal

from drakkar.routing import LATENCY_BOUNDS, Histogram
from drakkar.v1alpha1.serving import Canary

CRASHES = 3
"""A canary whose servers were restarted so often without getting ready is taken back."""
FEWEST_FAULTS = 3
"""So few failed requests decide nothing, whatever their share."""
CLEAR_SHARE = 0.5
"""So many more failed than of the stable revision's, and nobody waits for ``minRequests``: routers send
few requests to a replica that fails them."""
FEWEST_LATENCIES = 20
"""Of each revision, before their percentiles are compared."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of a revision's requests since the canary got its first ones."""

    requests: int = 0
    """That ended and were not given up by their clients."""
    faults: int = 0
    ttft: Histogram = field(default_factory=Histogram)

    @property
    def fault_share(self) -> float:
        """Failed requests of all, 0 to 1."""
        return self.faults / self.requests if self.requests else 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the canary, and why."""

    action: Literal["watch", "promote", "rollback"]
    message: str = ""


def judge(
    canary: Canary,
    new: Outcomes,
    stable: Outcomes,
    *,
    seconds: float,
    crashes: int = 0,
    ready: bool = True,
) -> Verdict:
    """Judge a canary that has run for so many ``seconds``; ``crashes`` are restarts of its servers."""
    if not ready and crashes >= CRASHES:
        return Verdict("rollback", f"its servers were restarted {crashes} times and are not ready")
    excess = new.fault_share - stable.fault_share
    judged = new.requests >= max(1, canary.min_requests)
    allowed = canary.max_error_share if judged else max(CLEAR_SHARE, canary.max_error_share)
    if new.faults >= FEWEST_FAULTS and excess > allowed:
        return Verdict(
            "rollback",
            f"{new.faults} of {new.requests} requests failed ({new.fault_share:.1%}), of the stable "
            f"revision {stable.fault_share:.1%}; allowed are {canary.max_error_share:.1%} more",
        )
    if judged and (slow := _slower(canary, new, stable)):
        return Verdict("rollback", slow)
    if not canary.auto_promote or seconds < canary.seconds or not ready:
        return Verdict("watch")
    if new.requests < canary.min_requests:
        return Verdict("watch", f"{new.requests} of {canary.min_requests} requests answered")
    return Verdict(
        "promote", f"{new.requests} requests in {seconds:.0f} s, {new.fault_share:.1%} failed"
    )


def _slower(canary: Canary, new: Outcomes, stable: Outcomes) -> str | None:
    """Why its latency is too high; None: it is not, or nobody can tell."""
    if min(new.ttft.count, stable.ttft.count) < FEWEST_LATENCIES:
        return None
    ours = new.ttft.quantile(0.9, LATENCY_BOUNDS)
    theirs = stable.ttft.quantile(0.9, LATENCY_BOUNDS)
    if not ours or not theirs or ours <= theirs * canary.max_latency_ratio:
        return None
    return (
        f"its 90th percentile to the first token is {ours:.2f} s, of the stable revision "
        f"{theirs:.2f} s; allowed is {canary.max_latency_ratio:g} times that"
    )
