"""What a gang asks for: GangRequest with its roles, and what of a pod spec chooses nodes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from drakkar.v1alpha1.gang import RankGroup, TopologyRequest, TopologySpread
from drakkar_operator.model import Amounts, Taint

Key = tuple[str, str]
"""(namespace, name)."""
HostPort = tuple[str, str, int]
"""(host IP, protocol, port); 0.0.0.0 stands for all addresses."""

ANY_ADDRESS = "0.0.0.0"


@dataclass(frozen=True, slots=True)
class Toleration:
    """A toleration of a pod; an empty key or effect matches all of them."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def tolerates(self, taint: Taint) -> bool:
        """As ``Toleration.ToleratesTaint`` of k8s.io/api/core/v1."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        if self.operator == "Exists":
            return True
        return self.operator in ("", "Equal") and bool(self.key) and self.value == taint.value


@dataclass(frozen=True, slots=True)
class Requirement:
    """One rule on a label or field: In, NotIn, Exists, DoesNotExist, Gt or Lt."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.key} {self.operator} [{', '.join(self.values)}]".removesuffix(" []")


@dataclass(frozen=True, slots=True)
class Term:
    """A node selector term: all its rules must hold; a term without rules matches no node."""

    expressions: tuple[Requirement, ...] = ()
    fields: tuple[Requirement, ...] = ()

    def __str__(self) -> str:
        return " and ".join(str(rule) for rule in (*self.expressions, *self.fields)) or "(empty)"


@dataclass(frozen=True, slots=True)
class Role:
    """Identical replicas of a gang: what each takes, and where it may run."""

    replicas: int
    requests: Amounts
    """What one replica requests; the pod itself ("pods": 1) is added by the snapshot."""
    name: str = ""
    """Empty where the gang has one role only."""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    node_affinity: tuple[Term, ...] = ()
    """Required terms, one of which must match; none: no rule."""
    tolerations: tuple[Toleration, ...] = ()
    host_ports: tuple[HostPort, ...] = ()
    groups: tuple[RankGroup, ...] = ()
    """Consecutive replicas of the role that share a domain, smallest group first. Each size divides
    the next, and the largest the role's replicas."""
    spread: TopologySpread | None = None
    """Most replicas of the role in a domain of a level."""
    reserve: bool = False
    """Spares: room that is kept for lost replicas."""

    @property
    def node_rules(self) -> tuple[object, ...]:
        """Equal for roles that the same nodes suit, whatever is free on them."""
        return frozenset(self.node_selector.items()), self.node_affinity, self.tolerations

    @property
    def shape(self) -> tuple[object, ...]:
        """Equal for roles that fit in the same snapshots: all but the name."""
        return (
            self.replicas,
            frozenset((r, a) for r, a in self.requests.items() if a > 0),
            self.node_rules,
            self.host_ports,
            tuple((group.size, group.level) for group in self.groups),
            (self.spread.level, self.spread.max_per_domain) if self.spread else None,
        )

    def spare(self, count: int) -> "Role":
        """So many further replicas that may take the place of lost ones, in no group."""
        return replace(self, replicas=count, name="spares", groups=(), spread=None, reserve=True)


@dataclass(frozen=True, slots=True)
class GangRequest:
    """Replicas that run together or not at all, numbered in order of their roles.

    Raises ValueError if an index is out of range, both missing and fixed, or, where
    others are missing, neither; if groups do not divide a role; if an elastic gang has several roles.
    """

    key: Key
    roles: tuple[Role, ...]
    missing: tuple[int, ...] = ()
    """Indexes that need a node."""
    fixed: Mapping[int, str] = field(default_factory=dict)
    """Node of each index that stays where it is."""
    hint: Mapping[int, str] = field(default_factory=dict)
    """Node where a missing index ran before: taken again if it still fits."""
    topology: TopologyRequest = field(default_factory=TopologyRequest)
    """Levels for the whole gang; groups and spread count in the roles only."""
    avoid: frozenset[str] = frozenset()
    """Nodes that must not be used: they failed or refused the gang lately."""
    sizes: tuple[int, ...] = ()
    """Of an elastic gang: the numbers of replicas that it may have, the largest (``replicas``)
    first. Only of gangs with one role and no rank in place; its groups divide each."""

    def __post_init__(self) -> None:
        where = f"gang {self.key[0]}/{self.key[1]}"
        for at in (*self.missing, *self.fixed):
            if not 0 <= at < self.replicas:
                raise ValueError(f"{where}: index {at} is outside 0..{self.replicas - 1}")
        known = set(self.missing)
        if len(known) != len(self.missing):
            raise ValueError(f"{where}: missing names an index twice: {self.missing}")
        if both := [at for at in self.missing if at in self.fixed]:
            raise ValueError(f"{where}: indexes {both} are both missing and fixed")
        if known and len(known) + len(self.fixed) != self.replicas:
            rest = sorted(set(range(self.replicas)) - known - set(self.fixed))
            raise ValueError(f"{where}: indexes {rest[:8]} are neither missing nor fixed")
        if self.sizes and len(self.roles) > 1:
            raise ValueError(f"{where}: an elastic gang has one role, not {len(self.roles)}")
        for role in self.roles:
            sizes = [*(group.size for group in role.groups), role.replicas]
            for inner, outer in pairwise(sizes):
                if outer % inner:
                    raise ValueError(
                        f"{where}: groups of {inner} replicas do not divide {outer} evenly"
                    )

    @classmethod
    def uniform(
        cls,
        key: Key,
        replicas: int,
        requests: Amounts,
        *,
        missing: Iterable[int] | None = None,
        fixed: Mapping[int, str] | None = None,
        hint: Mapping[int, str] | None = None,
        topology: TopologyRequest | None = None,
        avoid: frozenset[str] = frozenset(),
        sizes: tuple[int, ...] = (),
        **rules: Any,
    ) -> "GangRequest":
        """A gang of one role, with the groups and the spread of ``topology``. All but ``fixed`` is missing.

        ``rules`` are the further fields of Role.
        """
        topology = topology or TopologyRequest()
        fixed = fixed or {}
        if missing is None:
            missing = (at for at in range(replicas) if at not in fixed)
        groups, spread = tuple(topology.groups), topology.spread
        role = Role(replicas, requests, groups=groups, spread=spread, **rules)
        return cls(key, (role,), tuple(missing), fixed, hint or {}, topology, avoid, sizes)

    @classmethod
    def fresh(cls, key: Key, replicas: int, requests: Amounts, **rest: Any) -> "GangRequest":
        """A gang of one role none of whose ranks has a node."""
        return cls.uniform(key, replicas, requests, **rest)

    @property
    def replicas(self) -> int:
        """The whole gang, ranks that stay included."""
        return sum(role.replicas for role in self.roles)

    @property
    def ranks(self) -> int:
        """The gang without its spares."""
        return sum(role.replicas for role in self.roles if not role.reserve)

    @property
    def spans(self) -> list[tuple[int, Role]]:
        """(first index, role) in order."""
        first, spans = 0, []
        for role in self.roles:
            spans.append((first, role))
            first += role.replicas
        return spans

    def role_of(self, replica: int) -> Role:
        """The role of an index. Raises IndexError if there is no such replica."""
        for first, role in self.spans:
            if first <= replica < first + role.replicas:
                return role
        raise IndexError(f"gang {self.key[0]}/{self.key[1]} has no replica {replica}")

    @property
    def repair(self) -> bool:
        """Some of its ranks have a node."""
        return bool(self.fixed)

    @property
    def total(self) -> dict[str, int]:
        """What the whole gang requests, pods not included."""
        total: dict[str, int] = {}
        for role in self.roles:
            for resource, amount in role.requests.items():
                total[resource] = total.get(resource, 0) + amount * role.replicas
        return total

    @property
    def devices(self) -> int:
        """Accelerators that the gang asks for; its replicas, if it asks for none."""
        asked = sum(amount for resource, amount in self.total.items() if "/" in resource)
        return asked or self.replicas

    @property
    def shape(self) -> tuple[object, ...]:
        """Equal for requests that fit in the same snapshots: all but the key and the hints."""
        return (
            tuple(role.shape for role in self.roles),
            self.missing,
            frozenset(self.fixed.items()),
            self.topology.required,
            self.topology.preferred,
            self.avoid,
            self.sizes,
        )

    def resized(self, replicas: int) -> "GangRequest":
        """An elastic gang without ranks in place, with at most this many replicas."""
        return replace(
            self,
            roles=(replace(self.roles[0], replicas=replicas),),
            missing=tuple(range(replicas)),
            sizes=tuple(size for size in self.sizes if size <= replicas),
            hint={at: node for at, node in self.hint.items() if at < replicas},
        )


def rules_of_pod(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of Role that a pod spec (as JSON) decides, all but ``requests``."""
    affinity = spec.get("affinity") or {}
    required = (affinity.get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    return {
        "node_selector": dict(spec.get("nodeSelector") or {}),
        "node_affinity": terms(required.get("nodeSelectorTerms") or ()),
        "tolerations": tolerations(spec.get("tolerations") or ()),
        "host_ports": host_ports(spec),
    }


def tolerations(items: Iterable[Mapping[str, Any]]) -> tuple[Toleration, ...]:
    """Tolerations from their JSON."""
    return tuple(
        Toleration(
            key=item.get("key") or "",
            operator=item.get("operator") or "Equal",
            value=item.get("value") or "",
            effect=item.get("effect") or "",
        )
        for item in items
    )


def terms(items: Iterable[Mapping[str, Any]]) -> tuple[Term, ...]:
    """Node selector terms from their JSON."""
    return tuple(
        Term(_rules(item.get("matchExpressions")), _rules(item.get("matchFields")))
        for item in items
    )


def _rules(items: Sequence[Mapping[str, Any]] | None) -> tuple[Requirement, ...]:
    return tuple(
        Requirement(item["key"], item["operator"], tuple(item.get("values") or ()))
        for item in items or ()
    )


def host_ports(spec: Mapping[str, Any]) -> tuple[HostPort, ...]:
    """Ports of the node that a pod with this spec occupies; with hostNetwork all its ports."""
    host_network = bool(spec.get("hostNetwork"))
    sidecars = [
        # Plain init containers are gone when the pod runs.
        container
        for container in spec.get("initContainers") or ()
        if container.get("restartPolicy") == "Always"
    ]
    found = set()
    for container in (*(spec.get("containers") or ()), *sidecars):
        for port in container.get("ports") or ():
            number = port.get("hostPort") or (port.get("containerPort") if host_network else 0)
            if number:
                found.add(
                    (port.get("hostIP") or ANY_ADDRESS, port.get("protocol") or "TCP", number)
                )
    return tuple(sorted(found))
