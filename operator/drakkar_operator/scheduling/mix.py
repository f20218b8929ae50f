"""The job mix: which pods are asked for, and how often, of late."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from drakkar_operator.scheduling.request import Role

HALF_LIFE = 86_400.0
"""Seconds after which a request counts half."""
MOST_ROLES = 32
"""Kinds of pods that are told apart; rarer ones are forgotten."""


@dataclass(frozen=True, eq=False)
class Mix:
    """Roles with weights; their ``replicas`` say nothing. Compared by identity."""

    roles: tuple[tuple[Role, float], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.roles)


class JobMix:
    """What was asked for, each replica counted when its gang first asked; old ones fade."""

    def __init__(self) -> None:
        self._weights: dict[tuple[object, ...], tuple[Role, float, float]] = {}

    def add(self, roles: Sequence[Role], now: float) -> None:
        """A gang asks for the first time; ``now`` in seconds since the epoch."""
        for role in roles:
            kind = replace(role, replicas=1, name="", groups=(), reserve=False)
            _, weight, since = self._weights.get(kind.shape, (kind, 0.0, now))
            self._weights[kind.shape] = kind, _faded(weight, now - since) + role.replicas, now
        if len(self._weights) > 2 * MOST_ROLES:
            kept = self._ranked(now)
            self._weights = {role.shape: (role, weight, now) for role, weight in kept}

    def now(self, now: float) -> Mix:
        """The mix of this moment, the commonest first."""
        return Mix(tuple(self._ranked(now)))

    def _ranked(self, now: float) -> list[tuple[Role, float]]:
        found = [
            (role, _faded(weight, now - since)) for role, weight, since in self._weights.values()
        ]
        return sorted(found, key=lambda pair: -pair[1])[:MOST_ROLES]


def _faded(weight: float, seconds: float) -> float:
    return float(weight * 0.5 ** (max(0.0, seconds) / HALF_LIFE))
