"""The scheduler's answer as the placement of a job: ranks first, then spares."""

from collections.abc import Sequence

from drakkar.v1alpha1.trainingjob import Placement
from drakkar_operator.scheduling.decision import Placed
from drakkar_operator.scheduling.repair import unused


def placement(placed: Placed, spares: Sequence[str] = ()) -> Placement:
    """Where the gang's replicas are, and its spares.

    The spares are those that the answer places, or else what a repair leaves of those before; a
    gang that moves as a whole leaves them behind.
    """
    nodes, replicas = list(placed.all_nodes), placed.request.ranks
    left = unused(placed, spares) if placed.request.repair else []
    kept = nodes[replicas:] if len(nodes) > replicas else left
    return Placement(level=placed.level, domain=placed.domain, nodes=nodes[:replicas], spares=kept)
