"""Gangs as the scheduler's cycle sees them: those that wait for nodes and those that hold some."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from drakkar_operator.model import Share
from drakkar_operator.scheduling.decision import Reservation, reservations
from drakkar_operator.scheduling.request import GangRequest, Key


@dataclass(frozen=True, slots=True)
class Pending:
    """A gang with ranks that need nodes."""

    key: Key
    request: GangRequest
    queue: str | None = None
    priority: int = 0
    created: float = 0.0
    spares: tuple[str, ...] = ()
    """Nodes where it has room for one more rank each, for repairs."""
    extra: bool = False
    """It lacks nothing but spares or, if its request has sizes, would be larger."""
    charged: bool = False
    """It holds its quota already: it lost ranks, maybe all of them."""
    since: float | None = None
    """Since when it waits, in epoch seconds; None: since it was created."""
    lasts: float | None = None
    """Most seconds that it can run from now on, if that is limited."""
    preempts: bool = True
    """Others may be displaced for it."""

    @property
    def waits_since(self) -> float:
        """When it began to wait, in epoch seconds."""
        return self.created if self.since is None else self.since


@dataclass(frozen=True, slots=True)
class Running:
    """A gang that holds its nodes, whether or not its pods run yet. Times are epoch seconds."""

    key: Key
    request: GangRequest
    """All of its ranks are ``fixed``."""
    queue: str | None = None
    priority: int = 0
    created: float = 0.0
    placed: float = 0.0
    """Since when it holds this place."""
    saved: float | None = None
    """When its newest checkpoint was published; None: stopping it loses all since ``placed``."""
    restarts: int = 0
    """Interruptions so far, of any cause."""
    ends: float | None = None
    """When it is expected to be done, if that is known."""
    movable: bool = True
    """Its owner lets it be moved to other nodes."""
    leaving: bool = False
    """It gave up these nodes by decision, was deleted or is done, and its pods have not gone yet: the
    room is still taken in the snapshot, and free for certain before long. What it uses of a quota is
    not counted any more, or counted where it moves to: ``queue`` is None."""
    shares: Mapping[int, tuple[Share, ...]] = field(default_factory=dict)
    """What its ranks hold of shared devices, as far as it is known."""

    def lost_seconds(self, now: float) -> float:
        """Seconds of training of one replica that are done again if it stops now."""
        return max(0.0, now - max(self.placed, self.saved or 0.0))

    @property
    def reservations(self) -> tuple[Reservation, ...]:
        """The room that its ranks hold."""
        return reservations(self.request, self.request.fixed, self.shares)

    @property
    def devices(self) -> int:
        """Accelerators that it holds; its replicas, if it has none."""
        return self.request.devices
