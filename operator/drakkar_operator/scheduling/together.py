"""Gangs of several roles: all of them placed in one common domain, or none.

For each domain that has the room the roles are placed one after another, the one with the scarcest
requests first, each on what the others left, near to them. Where that order fails although all fit
(a coordinator that took the CPUs beside the last free device), ``split`` says on which nodes the
smaller roles must go instead. The verdict is exact as long as ``split`` is affordable: always, if
the smaller roles are a coordinator and the like, and no role asks for parts of a device. Beyond that the
orders of the roles are tried in the best domains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from drakkar_operator.scheduling.decision import reservations
from drakkar_operator.scheduling.groups import Units
from drakkar_operator.scheduling.predicates import Eligibility, capacity, eligible
from drakkar_operator.scheduling.request import GangRequest, Role
from drakkar_operator.scheduling.search import Search
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.split import Member, Split
from drakkar_operator.scheduling.topology import BoolArray, IntArray

_MOST_DOMAINS = 32
"""Domains of a level that are tried where the exact answer is not affordable."""


@dataclass(frozen=True, eq=False)
class Part:
    """A role of the gang and how to search for its places."""

    role: Role
    first: int
    suits: Eligibility
    rooms: IntArray
    """Replicas per node that fit in ``snapshot``."""
    snapshot: Snapshot
    search: Search

    def own(self, indexes: Sequence[int]) -> list[int]:
        """Those of the indexes that are of this role."""
        end = self.first + self.role.replicas
        if indexes and self.first <= min(indexes) and max(indexes) < end:
            return list(indexes)
        return [at for at in indexes if self.first <= at < end]

    def rooms_in(self, snapshot: Snapshot, request: GangRequest) -> IntArray:
        """Replicas per node that fit in a snapshot with the same nodes."""
        if snapshot is self.snapshot:
            return self.rooms
        mask = self.suits.mask
        if self.role.host_ports:
            mask = eligible(snapshot, self.role, request.avoid).mask
        return capacity(snapshot, self.role, mask)


class Together:
    """Several roles with ranks that need nodes."""

    def __init__(
        self,
        snapshot: Snapshot,
        request: GangRequest,
        parts: Sequence[Part],
        missing: Sequence[int],
        fixed: Mapping[int, int],
    ) -> None:
        self.snapshot = snapshot
        self.request = request
        self.missing = {part.first: part.own(missing) for part in parts}
        self.fixed = fixed
        self.parts = sorted(parts, key=self._scarcity)
        self.units = {part.first: self._units(snapshot, part) for part in parts}
        self.tree = snapshot.nodes.tree

    def arrange(self, top: int) -> dict[int, int] | None:
        """A node for each missing index, all in one domain of ``top`` or a tighter one."""
        tree = self.tree
        held = np.unique(np.array([*self.fixed.values()], dtype=np.int64))
        lowest = tree.common_depth(held) if len(held) else tree.leaf
        for depth in range(lowest, top - 1, -1):
            fits = self._each_fits(depth)
            if fits is None or not fits.any():
                continue
            if self.split is not None:
                fits &= self.split.fits(depth)
            main = self.parts[0]
            units = self.units[main.first]
            stage = units.active(depth)
            for _ in range(_MOST_DOMAINS):
                need = len(units.homeless[stage])
                domain = main.search.domain(units.free[stage], depth, fits, need, held)
                if domain is None:
                    break
                found = self._inside(depth, domain, held)
                if found is not None:
                    return found
                fits[domain] = False
        return None

    def _scarcity(self, part: Part) -> tuple[bool, int, int]:
        devices = any("/" in r and a > 0 for r, a in part.role.requests.items())
        return not devices, -len(self.missing[part.first]), part.first

    def _units(self, snapshot: Snapshot, part: Part) -> Units:
        rooms = part.rooms_in(snapshot, self.request)
        return part.search.units(rooms, self.missing[part.first], self.fixed)

    def _each_fits(self, depth: int) -> BoolArray | None:
        """Per domain of this depth: whether each role by itself fits; None if one is torn."""
        fits = np.ones(self.tree.count(depth), dtype=np.bool_)
        for part in self.parts:
            units = self.units[part.first]
            stage = units.active(depth)
            if units.torn(stage) is not None:
                return None
            fits &= units.free[stage].at(depth) >= len(units.homeless[stage])
        return fits

    @cached_property
    def split(self) -> Split | None:
        """The exact answer, if it is affordable."""
        members = [
            Member(p.role, p.suits.mask, self.units[p.first], len(self.missing[p.first]))
            for p in self.parts
        ]
        members.sort(key=lambda member: -member.missing)
        shared = any(r in self.snapshot.devices for p in self.parts for r in p.role.requests)
        if shared or not Split.affordable(self.tree, members[1:]):
            return None
        top = self.parts[0].search.top
        return Split(self.snapshot, members[0], members[1:], top)

    def _inside(self, depth: int, domain: int, held: IntArray) -> dict[int, int] | None:
        """All roles in this domain."""
        for order in (self.parts, self.parts[::-1]):
            found = self._in_turn(order, depth, domain, held, {})
            if found is not None:
                return found
        if self.split is None:
            return None
        small = self.split.counts(depth, domain)
        rooms = dict(zip((m.units for m in self.split.small), small, strict=True))
        chosen = {
            p.first: c for p in self.parts for u, c in rooms.items() if u is self.units[p.first]
        }
        order = sorted(self.parts, key=lambda part: part.first not in chosen)
        return self._in_turn(order, depth, domain, held, chosen)

    def _in_turn(
        self,
        order: Sequence[Part],
        depth: int,
        domain: int,
        held: IntArray,
        chosen: Mapping[int, IntArray],
    ) -> dict[int, int] | None:
        """Each role on what those before it left, or on the nodes ``chosen`` for it."""
        snapshot, found = self.snapshot, dict[int, int]()
        for part in order:
            missing = self.missing[part.first]
            if part.first in chosen:
                units = part.search.units(chosen[part.first], missing, self.fixed)
            else:
                units = self._units(snapshot, part)
            stage = units.active(depth)
            if units.torn(stage) is not None:
                return None
            if int(units.free[stage].at(depth)[domain]) < len(units.homeless[stage]):
                return None
            used = np.unique(np.array([*held, *found.values()], dtype=np.int64))
            own = part.search.fill(units, depth, domain, used)
            names = {at: self.tree.names[node] for at, node in own.items()}
            snapshot = snapshot.assume(reservations(self.request, names))
            found |= own
        return found
