"""The answer to a gang's request: Placed or Unplaced, and what becomes of the gang."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from drakkar_operator.model import Amounts, Share
from drakkar_operator.scheduling.request import GangRequest, HostPort, Key


@dataclass(frozen=True, slots=True)
class Reservation:
    """Room on a node for a rank that holds it by decision: its pod is not bound yet."""

    key: Key
    replica: int
    node: str
    requests: Amounts
    host_ports: tuple[HostPort, ...] = ()
    shares: tuple[Share, ...] | None = ()
    """What it takes of which shared devices; None: what fits best."""


def reservations(
    request: GangRequest,
    nodes: Mapping[int, str],
    shares: Mapping[int, tuple[Share, ...]] | None = None,
) -> tuple[Reservation, ...]:
    """The room that these indexes of a gang take on their nodes; ``shares`` as far as known."""
    known = shares or {}
    return tuple(
        Reservation(request.key, at, nodes[at], role.requests, role.host_ports, known.get(at))
        for first, role in request.spans
        for at in range(first, first + role.replicas)
        if at in nodes
    )


@dataclass(frozen=True, slots=True)
class Placed:
    """Every missing rank has a node."""

    request: GangRequest = field(repr=False)
    nodes: Mapping[int, str]
    """Node of each index that was missing."""
    level: str
    """Tightest level with one domain that holds the whole gang, or 'cluster'."""
    domain: str
    """Name of that domain, widest label first."""
    shares: Mapping[int, tuple[Share, ...]] = field(default_factory=dict)
    """What each of these indexes gets of which shared devices, on nodes that list theirs."""

    @property
    def all_nodes(self) -> tuple[str, ...]:
        """Node of every rank, in order of index."""
        both = {**self.request.fixed, **self.nodes}
        return tuple(both[at] for at in sorted(both))

    @property
    def reservations(self) -> tuple[Reservation, ...]:
        """The room that the placed ranks take."""
        return reservations(self.request, self.nodes, self.shares)


@dataclass(frozen=True, slots=True)
class Unplaced:
    """The gang has no place now."""

    reason: str
    """One sentence with numbers, for people."""
    need: int = 0
    """Units that must fit together."""
    best: int = 0
    """Units that the best domain has room for."""
    unit: str = "replica"
    """replica or group."""
    level: str = ""
    """Level of the domain that all units must share, or 'cluster'."""
    domain: str = ""
    """Name of the best domain."""
    blocked_by: Mapping[str, int] = field(default_factory=dict)
    """Per resource: how much is short in the best domain, if that resource alone is too scarce."""
    excluded: Mapping[str, int] = field(default_factory=dict)
    """Per predicate: nodes that it rules out (each counted once, at the first one)."""


@dataclass(frozen=True, slots=True)
class Eviction:
    """A running gang that must give up its place so that another can have it."""

    key: Key
    cause: Literal["Preempted", "Reclaimed", "Moved", "Grown"]
    """Preempted for a higher priority, Reclaimed by the queue that lent the quota, Moved to make room
    in one piece (the gang gets another place at once), or Grown: it starts anew with more replicas."""
    beneficiary: Key
    """The gang that it makes room for; itself, if it grows."""
    message: str
    """One sentence with numbers, for the owner of the evicted gang."""
    to: Placed | None = None
    """The place that a moved gang gets in exchange; it holds it from the decision on."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Room that is kept for a gang. It is valid as long as the gang waits for the same."""

    key: Key
    queue: str | None
    placed: Placed
    """Where the gang will run."""
    awaits: tuple[Key, ...]
    """Gangs that must be gone first."""
    until: float | None = None
    """When they are expected to be, in epoch seconds; None: not known."""

    def open_to(self, ends: float | None) -> bool:
        """Whether a gang that is known to end then may use the room in the meantime."""
        return ends is not None and self.until is not None and ends <= self.until


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a pending gang in this cycle: ``placed``, or ``reason`` says why not."""

    key: Key
    placed: Placed | None = None
    reason: str | None = None
    unplaced: Unplaced | None = None
    """The verdict with its numbers, if it was room (not quota) that was lacking."""
    position: int = 0
    """Place in the line of its queue, from 1, in the order in which its gangs are judged."""
    ahead: tuple[Key, ...] = ()
    """The gangs before it in that line that wait still, nearest to the head first; at most 8."""
    evictions: tuple[Eviction, ...] = ()
    """Running gangs that must leave so that it fits; it is placed when they are gone."""
    hold: Hold | None = None
    """Room that is kept for it; to be given to the next cycle."""
