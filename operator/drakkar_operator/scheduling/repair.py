"""Making a gang whole that lost ranks, at the least disturbance.

All lost ranks are replaced in one decision. The gang's spares come first: their room is free for it
alone. Without them the lost ranks go near the others. Where the others tie them to a domain that has
no room, the smallest part that can go elsewhere moves: the rank groups that lost a rank, else the
whole gang. Ranks that move go to nodes that are free now, since their pods are still where they were.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from drakkar_operator.scheduling.decision import Placed, Reservation
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.request import GangRequest
from drakkar_operator.scheduling.snapshot import Snapshot


def from_spares(
    snapshot: Snapshot, request: GangRequest, spares: Sequence[str]
) -> tuple[Placed, Snapshot] | None:
    """Places for the missing ranks with the help of the spares, and what is free then; or None.

    The snapshot holds the spares' room as taken, the answer that of those left over.
    """
    open_ = snapshot.release(_rooms(request, spares))
    placed = place(open_, request)
    if not isinstance(placed, Placed):
        return None
    return placed, open_.assume(placed).assume(_rooms(request, unused(placed, spares)))


def unused(placed: Placed, spares: Sequence[str]) -> list[str]:
    """Spares whose nodes the placed ranks did not take."""
    left = list(spares)
    for node in placed.nodes.values():
        if node in left:
            left.remove(node)
    return left


def smallest_part(snapshot: Snapshot, request: GangRequest) -> GangRequest:
    """The request for the smallest part of the gang that has to move; as given, if none fits."""
    for missing in _parts(request):
        fixed = {at: node for at, node in request.fixed.items() if at not in missing}
        wider = replace(request, missing=missing, fixed=fixed)
        if isinstance(place(snapshot, wider), Placed):
            return wider
    return request


def _parts(request: GangRequest) -> Iterator[tuple[int, ...]]:
    """Ranks that might move together, the fewest first."""
    yield request.missing
    everyone = tuple(sorted({*request.missing, *request.fixed}))
    parts = {len(request.missing), len(everyone)}
    for level in range(max(len(role.groups) for role in request.roles)):
        part = tuple(
            sorted({at for lost in request.missing for at in _group(request, lost, level)})
        )
        if len(part) not in parts:
            parts.add(len(part))
            yield part
    yield everyone


def _group(request: GangRequest, rank: int, level: int) -> range:
    """The ranks of the group that a rank is in; itself, if its role has no groups."""
    for first, role in request.spans:
        if first <= rank < first + role.replicas and role.groups:
            size = role.groups[min(level, len(role.groups) - 1)].size
            start = rank - (rank - first) % size
            return range(start, start + size)
    return range(rank, rank + 1)


def _rooms(request: GangRequest, spares: Sequence[str]) -> list[Reservation]:
    """What the spares hold."""
    role = request.roles[-1]
    return [
        Reservation(request.key, request.replicas + at, node, role.requests, role.host_ports)
        for at, node in enumerate(spares)
    ]
