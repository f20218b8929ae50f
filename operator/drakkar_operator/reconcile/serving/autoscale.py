"""How many replicas a service needs, from the load that its routers saw.

``decide`` is a pure function of the settings, the load, what it remembers and the time. Without
figures (no router answers) nothing changes. Two ways to count:

- ``concurrency`` is Knative's autoscaler (KPA): the average of requests in flight and held over a
  stable window, against 70 % of the target; a short panic window sees a sudden load, and while it
  lasts nothing is scaled down.
- ``slo`` follows llm-d: the 90th percentiles of the times to the first and per later token against
  their goals, with a dead band; up by at most double (or 4) per minute, down by one per two minutes.
"""

import math
from dataclasses import dataclass, replace

from drakkar.v1alpha1.serving import Scaling

UTILIZATION = 0.7
"""Of the target that replicas are to be filled to: the rest is for what comes meanwhile."""
PANIC_RATIO = 2.0
"""Panic begins when the short window asks for so many times the ready replicas."""
SLO_HIGH, SLO_LOW = 0.55, 0.40
"""Scores between them change nothing."""
SLO_WINDOW = 45.0
SLO_UP_SECONDS, SLO_DOWN_SECONDS = 60.0, 120.0
SLO_UP_LEAST = 4


@dataclass(frozen=True, slots=True)
class Load:
    """What the routers of a service saw, all together."""

    concurrency: tuple[tuple[int, float], ...] = ()
    """(second since the epoch, requests in flight and held), oldest first."""
    held: int = 0
    """Requests that wait for a replica now."""
    in_flight: int = 0
    ttft: float | None = None
    """90th percentile of the last moments, seconds; None: no request."""
    tpot: float | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered from one decision to the next. An empty one is safe: nothing shrinks soon."""

    wishes: tuple[tuple[float, int], ...] = ()
    """(time, replicas) wished for of late, for the delay of scaling down."""
    panic_until: float = -math.inf
    panic_peak: int = 0
    busy: float | None = None
    """When there was a request last."""
    scores: tuple[tuple[float, float], ...] = ()
    """(time, worst latency over its goal)."""
    raised: float = -math.inf
    lowered: float = -math.inf


@dataclass(frozen=True, slots=True)
class Size:
    """How many replicas there are to be."""

    desired: int
    reason: str
    memory: Memory


def decide(
    scaling: Scaling,
    load: Load | None,
    memory: Memory,
    *,
    current: int,
    ready: int,
    pending: int,
    now: float,
) -> Size:
    """The wanted number of replicas, always within min and max.

    ``current`` is what was wanted so far, ``ready`` how many can answer, ``pending`` how many wait for
    room in the cluster or in their queue's quota: as long as some do, no more are asked for.
    """
    if load is None:
        return Size(_within(scaling, current), "no figures from the routers", memory)
    # A replica that only comes has had no chance to be asked.
    if load.in_flight or load.held or memory.busy is None or ready < 1 <= current:
        memory = replace(memory, busy=now)
    if scaling.metric == "slo":
        wish, reason, memory = _by_latency(scaling, load, memory, current, ready, now)
    else:
        wish, reason, memory = _by_concurrency(scaling, load, memory, ready, now)
    wish = max(wish, _at_least(scaling, load, memory, current, now))
    if pending and wish > current:
        wish, reason = current, f"{pending} replicas wait for room"
    wish = _within(scaling, wish)
    delay = scaling.behavior.scale_down_delay_seconds
    known = memory.wishes or ((now, current),)
    wishes = (*((at, n) for at, n in known if at > now - delay), (now, wish))
    highest = max(n for _, n in wishes)
    if wish < current and highest > wish:
        wish, reason = min(current, highest), f"{wish} would do; waits {delay} s before it shrinks"
    memory = replace(memory, wishes=_thinned(wishes))
    if wish < current and scaling.metric == "slo":
        memory = replace(memory, lowered=now)
    if wish > current and scaling.metric == "slo":
        memory = replace(memory, raised=now)
    return Size(_within(scaling, wish), reason, memory)


def average(samples: tuple[tuple[int, float], ...], seconds: float, now: float) -> float | None:
    """Mean of the samples of so many last seconds; None without any."""
    values = [value for at, value in samples if now - seconds - 1 <= at <= now]
    return sum(values) / len(values) if values else None


def _by_concurrency(
    scaling: Scaling, load: Load, memory: Memory, ready: int, now: float
) -> tuple[int, str, Memory]:
    stable = average(load.concurrency, scaling.stable_seconds, now)
    panic = average(load.concurrency, scaling.panic_seconds, now)
    instant = float(load.in_flight + load.held)
    stable = instant if stable is None else stable
    panic = instant if panic is None else panic
    per_replica = UTILIZATION * scaling.target
    base = max(1, ready)
    low = math.floor(ready / scaling.behavior.max_down)
    high = math.ceil(base * scaling.behavior.max_up)
    calm = min(max(math.ceil(stable / per_replica), low), high)
    alarm = min(max(math.ceil(panic / per_replica), low), high)
    if alarm / base >= PANIC_RATIO:
        memory = replace(memory, panic_until=now + scaling.stable_seconds)
    if now >= memory.panic_until:
        return calm, f"{stable:.1f} requests at a time", replace(memory, panic_peak=0)
    peak = max(calm, alarm, memory.panic_peak, min(ready, high))
    reason = f"{panic:.1f} requests at a time, suddenly"
    return peak, reason, replace(memory, panic_peak=peak)


def _by_latency(
    scaling: Scaling, load: Load, memory: Memory, current: int, ready: int, now: float
) -> tuple[int, str, Memory]:
    ratios = [
        seen * 1000 / goal
        for seen, goal in (
            (load.ttft, scaling.ttft_milliseconds),
            (load.tpot, scaling.tpot_milliseconds),
        )
        if seen is not None and goal is not None
    ]
    scores = tuple((at, s) for at, s in memory.scores if at > now - SLO_WINDOW)
    if ratios or not load.in_flight:
        # The worse of both must meet its goal, so the larger counts; what hangs tells nothing yet.
        scores = (*scores, (now, min(max(ratios, default=0.0), 2.0)))
    memory = replace(memory, scores=_thinned_scores(scores))
    if not scores or current == 0:
        return current, "no latencies yet", memory
    score = sum(value for _, value in scores) / len(scores)
    reason = f"latency is {score:.2f} of its goal"
    if score > SLO_HIGH:
        if now - memory.raised < SLO_UP_SECONDS:
            return current, reason, memory
        grown = current + math.ceil(current * (score * (ready / current) / SLO_HIGH - 1))
        most = current + max(current, SLO_UP_LEAST)
        return max(current, min(grown, most)), reason, memory
    if score < SLO_LOW:
        if now - memory.lowered < SLO_DOWN_SECONDS:
            return current, reason, memory
        less = current - math.floor(current * (1 - score / SLO_LOW))
        return max(1, less, current - 1), reason, memory
    return current, reason, memory


def _at_least(scaling: Scaling, load: Load, memory: Memory, current: int, now: float) -> int:
    """One replica as long as someone asks; the last one stays for a while after that."""
    if scaling.min > 0 or load.held or load.in_flight:
        return 1
    idle = now - memory.busy if memory.busy is not None else 0.0
    return int(current > 0 and idle < scaling.behavior.scale_to_zero_seconds)


def _within(scaling: Scaling, wish: int) -> int:
    return min(max(wish, scaling.min), scaling.max)


def _thinned(wishes: tuple[tuple[float, int], ...]) -> tuple[tuple[float, int], ...]:
    """Without wishes that a later, no lower one makes useless."""
    kept: list[tuple[float, int]] = []
    for at, wish in wishes:
        while kept and kept[-1][1] <= wish:
            kept.pop()
        kept.append((at, wish))
    return tuple(kept)


def _thinned_scores(
    scores: tuple[tuple[float, float], ...],
) -> tuple[tuple[float, float], ...]:
    return scores[-200:]
