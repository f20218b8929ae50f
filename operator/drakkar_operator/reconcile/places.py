"""The scheduler's answer as the placement of a job: ranks first, then spares, and their devices."""

from collections.abc import Iterable, Sequence

from drakkar.v1alpha1.trainingjob import DeviceShare, Placement
from drakkar_operator.model import Share
from drakkar_operator.scheduling.decision import Placed
from drakkar_operator.scheduling.repair import unused


def placement(
    placed: Placed, spares: Sequence[str] = (), before: Placement | None = None
) -> Placement:
    """Where the gang's replicas are, and its spares.

    The spares are those that the answer places, or else what a repair leaves of those before; a
    gang that moves as a whole leaves them behind. ``before`` is where it was: replicas that stay keep
    their devices.
    """
    nodes, replicas = list(placed.all_nodes), placed.request.ranks
    left = unused(placed, spares) if placed.request.repair else []
    kept = nodes[replicas:] if len(nodes) > replicas else left
    stay = before.shares if before is not None else []
    shares = [each for each in stay if each.replica in placed.request.fixed]
    shares += [
        DeviceShare(replica=replica, resource=resource, device=device, thousandths=amount)
        for replica, parts in placed.shares.items()
        for resource, device, amount in parts
        if replica < replicas
    ]
    shares.sort(key=lambda each: each.replica)
    return Placement(
        level=placed.level,
        domain=placed.domain,
        nodes=nodes[:replicas],
        spares=kept,
        shares=shares,
    )


def shares_of(shares: Iterable[DeviceShare]) -> dict[int, tuple[Share, ...]]:
    """What each replica has of which devices, of those that have any."""
    found: dict[int, tuple[Share, ...]] = {}
    for each in shares:
        share = (each.resource, each.device, each.thousandths)
        found[each.replica] = (*found.get(each.replica, ()), share)
    return found
