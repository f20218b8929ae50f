"""Which replica gets a request: a pure function of what is known at that moment."""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from drakkar.routing import Policy

SPREAD = 1.25
"""No replica is preferred that has so much more than the mean load (CHWBL, Mirrokni et al. 2016)."""
SLACK = 2.0
"""Requests more that do not matter: engines batch."""
WAITING_LIMIT = 8
"""A replica in which so many requests wait is full: more wait here, where keys get fair turns."""
EQUAL = 1e-9


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica at the moment of a pick, and what it has for the request."""

    name: str
    revision: str
    ready: bool = True
    draining: bool = False
    closed: bool = True
    """Its circuit breaker lets requests through."""
    load: float = 0
    """What waits or runs there, in requests; a prompt that is still to be computed counts more."""
    in_flight: int = 0
    """Those of them that this router has sent."""
    waiting: float | None = None
    """Requests that wait in its engine; None if it is not known."""
    kv: float | None = None
    """Share of its cache in use, 0 to 1; None if it is not known."""
    prefix: float = 0
    """Share of the prompt that it has seen, 0 to 1."""
    session: bool = False
    adapter: bool = False


def pick(
    candidates: Sequence[Candidate],
    shares: Mapping[str, float],
    policy: Policy,
    *,
    draw: float,
    turn: int = 0,
    limit: int = 0,
    avoid: Collection[str] = (),
    chance: random.Random,
) -> Candidate | None:
    """The replica for a request, or None if it must wait.

    ``shares`` are the revisions' weights (empty: all alike); ``draw`` in [0, 1) chooses among the
    revisions, ``turn`` counts requests for round robin, ``limit`` bounds the requests in flight at a
    replica (0: no limit), ``avoid`` names those that have failed this request.

    If no circuit lets anything through, they are all tried: a breaker must not take a service down.
    """
    able = [
        one
        for one in candidates
        if one.ready
        and not one.draining
        and one.name not in avoid
        and (not shares or shares.get(one.revision, 0) > 0)
    ]
    able = [one for one in able if one.closed] or able
    able = [one for one in able if not _full(one, limit)]
    if not able:
        return None
    if shares:
        revision = _draw_revision(able, shares, draw)
        able = [one for one in able if one.revision == revision]
    if policy.kind == "round-robin":
        return sorted(able, key=lambda one: one.name)[turn % len(able)]
    if policy.kind == "least-requests":
        least = min(one.in_flight for one in able)
        return chance.choice([one for one in able if one.in_flight == least])
    return _best(able, policy, chance)


def _full(one: Candidate, limit: int) -> bool:
    waits = one.waiting is not None and one.waiting >= WAITING_LIMIT
    return waits or (limit > 0 and one.in_flight >= limit)


def _draw_revision(able: Sequence[Candidate], shares: Mapping[str, float], draw: float) -> str:
    names = sorted({one.revision for one in able})
    left = draw * sum(shares[name] for name in names)
    for name in names:
        left -= shares[name]
        if left < 0:
            return name
    return names[-1]


def _best(able: Sequence[Candidate], policy: Policy, chance: random.Random) -> Candidate:
    bound = SPREAD * (sum(one.load for one in able) + 1) / len(able) + SLACK
    # The least loaded one is always below its bound.
    able = [one for one in able if one.load < bound]
    known = [one.kv for one in able if one.kv is not None]
    # What tells nothing is taken for the fullest, so that silence attracts nobody.
    worst = max(known, default=0.0)

    def score(one: Candidate) -> float:
        return (
            policy.prefix * one.prefix
            + policy.queue * (1 - one.load / bound)
            + policy.kv * (1 - (worst if one.kv is None else one.kv))
            + policy.session * one.session
            + policy.adapter * one.adapter
        )

    scores = [score(one) for one in able]
    top = max(scores) - EQUAL
    return chance.choice([one for one, value in zip(able, scores, strict=True) if value >= top])
