"""What the queues use, and whether one may use more.

Three rules, at each queue from the job's own up to the root:

1. A queue and those below it use no more than its quota and what it may borrow.
2. Queues below one parent together use no more than the parent may; where the parent has no quota
   for a resource, no more than their own quotas together.
3. A queue that lends only a part of its quota has the rest counted as used, whether it is or not.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from drakkar.quantity import show
from drakkar_operator.model import Amounts
from drakkar_operator.scheduling.decision import reservations
from drakkar_operator.scheduling.nodes import PODS
from drakkar_operator.scheduling.queues import ALL, Charge, Item, Queues, Selector
from drakkar_operator.scheduling.request import GangRequest
from drakkar_operator.scheduling.snapshot import Snapshot


@dataclass(slots=True)
class _Account:
    """One queue's books."""

    own: Counter[Item] = field(default_factory=Counter)
    """What jobs that name this queue use."""
    used: Counter[Item] = field(default_factory=Counter)
    """And those of the queues below it."""
    claimed: Counter[Item] = field(default_factory=Counter)
    """What the queues below it use or keep for themselves."""
    jobs: int = 0
    """Gangs in ``used``."""
    firm: Counter[Item] = field(default_factory=Counter)
    """Kept for gangs that wait and need not borrow to get here."""
    loose: Counter[Item] = field(default_factory=Counter)
    """Kept for gangs that wait and borrow: only before other borrowers."""
    loose_of: dict[str, Counter[Item]] = field(default_factory=dict)
    """``loose`` by the queue that the gang names."""


class Ledger:
    """Books of all queues while a cycle goes on."""

    def __init__(self, queues: Queues) -> None:
        self.queues = queues
        self.version = 0
        """Grows with each change."""
        self._accounts: dict[str | None, _Account] = {name: _Account() for name in queues.views}
        self._accounts[None] = _Account()
        for name in sorted(queues.views, key=lambda each: -len(queues.lines[each])):
            parent = queues.views[name].parent
            if name in queues.problems or parent is None:
                continue
            claimed = self._accounts[parent].claimed
            for item in {*queues.limits[name], *self._accounts[name].claimed}:
                claimed[item] += self._claim(name, item)

    def used(self, queue: str) -> Charge:
        """What the queue's gangs and those below it use."""
        return self._accounts[queue].used

    def own(self, queue: str | None) -> Charge:
        """What the gangs that name the queue use, or those that name none."""
        return self._accounts[queue].own

    def borrowed(self, queue: str) -> dict[Item, int]:
        """What the queue uses above its quota."""
        used, limits = self._accounts[queue].used, self.queues.limits[queue]
        above = {item: used[item] - limit.quota for item, limit in limits.items()}
        return {item: amount for item, amount in above.items() if amount > 0}

    def lent(self, queue: str) -> dict[Item, int]:
        """What other queues below the same parent use of the quota that this one leaves unused.

        What they borrow comes first out of what the parent has beyond its children's quotas, then
        out of what each of them leaves unused, in proportion.
        """
        parent = self.queues.views[queue].parent
        if parent is None or queue in self.queues.problems:
            return {}
        siblings, found = self.queues.children[parent], {}
        for item, limit in self.queues.limits[queue].items():
            unused = {name: self._lendable(name, item) for name in siblings}
            if not unused[queue]:
                continue
            borrowed = sum(self.borrowed(name).get(item, 0) for name in siblings)
            pool = self.queues.limits[parent].get(item)
            if pool is not None:
                limits = [self.queues.limits[name].get(item) for name in siblings]
                borrowed -= max(0, pool.quota - sum(each.quota for each in limits if each))
            lent = max(0, borrowed) * unused[queue] // sum(unused.values())
            if lent:
                found[item] = min(lent, limit.quota)
        return found

    def borrows(self, queue: str, charge: Charge) -> bool:
        """Whether the queue would use more than its quota of something if it used this much more."""
        used, limits = self._accounts[queue].used, self.queues.limits[queue]
        for item, amount in charge.items():
            limit = limits.get(item)
            if amount > 0 and limit is not None and used[item] + amount > limit.quota:
                return True
        return False

    def add(self, queue: str | None, charge: Charge, jobs: int = 1) -> None:
        """Count what a gang uses; negative amounts take it away again."""
        if queue not in self._accounts or not charge:
            return
        self.version += 1
        if queue is None:
            self._accounts[None].own.update(charge)
            return
        rising = charge
        for name in self.queues.lines[queue]:
            account = self._accounts[name]
            account.jobs += jobs
            account.used.update(charge)
            loads = account.own if name == queue else account.claimed
            above: dict[Item, int] = {}
            for item, amount in rising.items():
                before = self._claim(name, item)
                loads[item] += amount
                above[item] = self._claim(name, item) - before
            rising = above

    def keep(self, queue: str | None, charge: Charge) -> None:
        """Let gangs that are asked about from here on leave this much for one that waits."""
        if queue is None or queue not in self._accounts:
            return
        self.version += 1
        borrowing = False
        for name in self.queues.lines[queue]:
            account = self._accounts[name]
            if borrowing:
                account.loose.update(charge)
                account.loose_of.setdefault(queue, Counter()).update(charge)
            else:
                account.firm.update(charge)
            borrowing = borrowing or self.borrows(name, charge)

    def problem(self, queue: str | None, charge: Charge) -> str | None:
        """Why this can't be charged to the queue; None if it can."""
        if queue is None:
            return None
        if queue not in self._accounts:
            return f"queue '{queue}' does not exist"
        if queue in self.queues.problems:
            return self.queues.problems[queue]
        return self._exceeded(queue, charge, kept=False)

    def possible(self, queue: str | None, charge: Charge) -> bool:
        """Whether the queue could take this if nobody used anything."""
        for name in self.queues.lines.get(queue or "", ()):
            limits, pool = self.queues.limits[name], self.queues.pools[name]
            for item, amount in charge.items():
                most = limits[item].most if item in limits else pool.get(item)
                if most is not None and amount > most and (item in limits or name != queue):
                    return False
        return True

    def in_the_way(self, queue: str | None, charge: Charge) -> str | None:
        """Which queue's room is kept for a gang that waits longer; None if there is enough."""
        if queue is None or queue not in self._accounts:
            return None
        return self._exceeded(queue, charge, kept=True)

    def _exceeded(self, queue: str, charge: Charge, kept: bool) -> str | None:
        """The first limit that is too tight, in words."""
        needs = {item: amount for item, amount in charge.items() if amount > 0}
        rising = needs
        borrowing = False
        for name in self.queues.lines[queue]:
            account, limits, pool = (
                self._accounts[name],
                self.queues.limits[name],
                self.queues.pools[name],
            )
            above: dict[Item, int] = {}
            for item, need in needs.items():
                rise, limit = rising.get(item, 0), limits.get(item)
                kept_here = self._kept(account, item, queue, borrowing) if kept else 0
                claimed, own = account.claimed[item], account.own[item]
                if limit is not None:
                    load = max(account.used[item] + need, claimed + own + rise if rise else 0)
                    if load + kept_here > limit.most:
                        return self._words(name, item, need, limit.most, kept)
                elif name != queue and item in pool and claimed + rise + kept_here > pool[item]:
                    return self._words(name, item, need, pool[item], kept)
                reserved = limit.reserved if limit is not None else 0
                more = max(claimed + own + rise, reserved) - max(claimed + own, reserved)
                if more > 0:
                    above[item] = more
            borrowing = borrowing or self.borrows(name, charge)
            rising = above
        return None

    @staticmethod
    def _kept(account: _Account, item: Item, queue: str, borrowing: bool) -> int:
        if borrowing:
            return account.firm[item] + account.loose[item]
        own = account.loose_of.get(queue)
        return account.firm[item] + (own[item] if own is not None else 0)

    def _claim(self, name: str, item: Item) -> int:
        """What a queue takes of its parent's."""
        account, limit = self._accounts[name], self.queues.limits[name].get(item)
        return max(account.own[item] + account.claimed[item], limit.reserved if limit else 0)

    def _lendable(self, name: str, item: Item) -> int:
        limit = self.queues.limits[name].get(item)
        if limit is None:
            return 0
        return max(0, limit.quota - max(self._accounts[name].used[item], limit.reserved))

    def _words(self, name: str, item: Item, need: int, most: int, kept: bool) -> str:
        selector, resource = item
        account, limit = self._accounts[name], self.queues.limits[name].get(item)
        jobs, used = account.jobs, account.used[item]
        what = resource + (f" of flavor {limit.flavor}" if limit and limit.flavor else "")
        if limit is None:
            allows = f"the queues below '{name}' have {show(resource, most)} {what} together"
        else:
            allows = f"queue '{name}' allows {show(resource, limit.quota)} {what}"
            if limit.borrowing and most - used < need:
                allows += f" and {show(resource, limit.borrowing)} borrowed"
        are = "is" if used == 1 else "are"
        by = f" by {jobs} job{'' if jobs == 1 else 's'}" if used and not selector else ""
        words = f"{allows}; {show(resource, used)} {are} used{by}"
        if unlent := account.own[item] + account.claimed[item] - used:
            words += f", {show(resource, unlent)} kept by queues that do not lend them"
        if kept:
            words += ", the rest is kept for a job that has waited longer"
        return f"{words}, this job needs {show(resource, need)}"


class Charges:
    """What gangs use of each item, given the nodes of a snapshot."""

    def __init__(self, queues: Queues, snapshot: Snapshot) -> None:
        self._nodes: dict[Selector, frozenset[str]] = {
            selector: frozenset(
                view.name for view in snapshot.nodes.views if selector <= view.labels.items()
            )
            for selector in queues.selectors
        }

    def placed(self, request: GangRequest, nodes: Mapping[int, str]) -> dict[Item, int]:
        """Of a gang whose ranks are on these nodes."""
        charge = self.all(request)
        if self._nodes:
            for rank in reservations(request, nodes):
                for selector, names in self._nodes.items():
                    if rank.node in names:
                        _count(charge, selector, rank.requests, 1)
        return charge

    def planned(self, request: GangRequest) -> dict[Item, int]:
        """Of a gang that has no nodes yet: the items that its node selectors imply."""
        charge = self.all(request)
        for selector in self._nodes:
            for role in request.roles:
                if selector <= role.node_selector.items():
                    _count(charge, selector, role.requests, role.replicas)
        return charge

    def common(self, nodes: Iterable[str]) -> frozenset[Selector]:
        """Selectors that all these nodes match."""
        names = {*nodes}
        return frozenset(selector for selector, those in self._nodes.items() if names <= those)

    @staticmethod
    def all(request: GangRequest) -> dict[Item, int]:
        """Over nodes of all kinds; devices first, then by name."""
        total = {**request.total, PODS: request.replicas}
        return {(ALL, r): total[r] for r in sorted(total, key=lambda each: ("/" not in each, each))}


def _count(charge: dict[Item, int], selector: Selector, requests: Amounts, ranks: int) -> None:
    for resource, amount in {**requests, PODS: 1}.items():
        item = selector, resource
        charge[item] = charge.get(item, 0) + amount * ranks
