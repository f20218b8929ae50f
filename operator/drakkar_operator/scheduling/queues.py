"""The tree of queues: which are usable, in what order limits apply, and on which nodes jobs may run.

A queue's limits hold for its own jobs and for those of all queues below it. A quota is for all
nodes, or for those with a flavor's labels.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from drakkar_operator.model import Flavor, QueueView
from drakkar_operator.scheduling.request import GangRequest

Selector = frozenset[tuple[str, str]]
"""Node labels; none: all nodes."""
Item = tuple[Selector, str]
"""What a limit is about: a resource on nodes of a kind."""
Charge = Mapping[Item, int]
"""Amounts per item."""

ALL: Selector = frozenset()
MOST_LEVELS = 16
"""Queues from a root to the lowest."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What one queue may use of one item."""

    quota: int
    borrowing: int = 0
    reserved: int = 0
    """Part of the quota that is not lent."""
    flavor: str = ""

    @property
    def most(self) -> int:
        """Quota and what may be borrowed."""
        return self.quota + self.borrowing


class Queues:
    """The queues by name, with their place in the tree. Immutable."""

    def __init__(self, views: Mapping[str, QueueView]) -> None:
        self.views = dict(views)
        self.limits = {name: _limits(view) for name, view in self.views.items()}
        self.problems = {
            name: problem for name in self.views if (problem := self._problem(name)) is not None
        }
        """Why a queue can't be used, for those that can't."""
        self.children: dict[str | None, list[str]] = {None: []}
        for name in sorted(self.views):
            self.children.setdefault(name, [])
            if name not in self.problems:
                self.children.setdefault(self.views[name].parent, []).append(name)
        self.lines = {name: self._line(name) for name in self.views}
        """Per queue: itself, its parent and so on."""
        self.pools = self._pools()
        """Per queue: what the queues below it have together of items that it has no quota for."""
        self.selectors = tuple(
            sorted(
                {s for limits in self.limits.values() for s, _ in limits if s},
                key=lambda each: sorted(each),
            )
        )
        """Labels of all flavors."""

    def usable(self, name: str) -> bool:
        """Whether there is such a queue, with a line of parents up to a root."""
        return name in self.views and name not in self.problems

    def flavors(
        self, queue: str | None, request: GangRequest
    ) -> tuple[tuple[Flavor, ...], frozenset[str]]:
        """(flavors that the gang may use, in order; the resources that they have quotas for).

        They are those of the nearest queue up the tree that has one with a quota for a resource
        that the gang requests. None: its queue does not tell nodes apart.
        """
        wanted = {resource for resource, amount in request.total.items() if amount > 0}
        for name in self.lines.get(queue or "", ()):
            found = [f for f in self.views[name].flavors if wanted & f.limits.quota.keys()]
            if found:
                return tuple(found), frozenset().union(*(f.limits.quota for f in found))
        return (), frozenset()

    def _line(self, name: str) -> tuple[str, ...]:
        line: list[str] = []
        at: str | None = name
        while at is not None and at in self.views and at not in line:
            line.append(at)
            at = self.views[at].parent
        return tuple(line)

    def _problem(self, name: str) -> str | None:
        line = self._line(name)
        parent = self.views[line[-1]].parent
        if parent is None:
            if len(line) > MOST_LEVELS:
                return f"queue '{name}' has {len(line) - 1} queues above it; write at most {MOST_LEVELS - 1}"
            return None
        if parent not in self.views:
            return f"queue '{line[-1]}' has the parent '{parent}', which does not exist"
        circle = line[line.index(parent) :]
        if len(circle) == 1:
            return f"queue '{parent}' is its own parent"
        names = ", ".join(f"'{each}'" for each in (*circle, parent))
        return f"the parents of queue '{name}' go round in a circle: {names}"

    def _pools(self) -> dict[str, dict[Item, int]]:
        pools: dict[str, dict[Item, int]] = {}
        quotas: dict[str, dict[Item, int]] = {}
        for name in sorted(self.views, key=lambda each: -len(self.lines[each])):
            below = [quotas[child] for child in self.children[name]]
            items = set.intersection(*(set(each) for each in below)) if below else set()
            own = {item: limit.quota for item, limit in self.limits[name].items()}
            pools[name] = {
                item: sum(each[item] for each in below) for item in items if item not in own
            }
            quotas[name] = {**pools[name], **own}
        return pools


def restricted(
    request: GangRequest, flavor: Flavor, limited: Collection[str]
) -> GangRequest | None:
    """The request with roles that ask for limited resources on nodes of a flavor.

    None if the selector of such a role rules the flavor out.
    """
    roles = []
    for role in request.roles:
        if any(role.requests.get(resource, 0) > 0 for resource in limited):
            selector = {**role.node_selector, **flavor.labels}
            if any(selector[label] != value for label, value in role.node_selector.items()):
                return None
            role = replace(role, node_selector=selector)
        roles.append(role)
    return replace(request, roles=tuple(roles))


def selector_of(labels: Mapping[str, str]) -> Selector:
    """Labels as part of an item."""
    return frozenset(labels.items())


def _limits(view: QueueView) -> dict[Item, Limit]:
    found: dict[Item, Limit] = {}
    kinds: Iterable[tuple[Selector, str, Mapping[str, int], Mapping[str, int], Mapping[str, int]]]
    kinds = [
        (ALL, "", view.quota, view.borrowing, view.lending),
        *(
            (selector_of(f.labels), f.name, f.limits.quota, f.limits.borrowing, f.limits.lending)
            for f in view.flavors
        ),
    ]
    for selector, flavor, quotas, borrowing, lending in kinds:
        for resource, quota in quotas.items():
            reserved = max(0, quota - lending[resource]) if resource in lending else 0
            found[selector, resource] = Limit(quota, borrowing.get(resource, 0), reserved, flavor)
    return found
