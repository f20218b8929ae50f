"""What a gang asks for: GangRequest and the parts of a pod spec that choose nodes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from drakkar.v1alpha1.trainingjob import TopologyRequest
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
class GangRequest:
    """Identical replicas that run together or not at all.

    Raises ValueError if an index is out of range or both missing and fixed.
    """

    key: Key
    replicas: int
    """The whole gang, ranks that stay included."""
    requests: Amounts
    """What one replica requests; the pod itself ("pods": 1) is added by the snapshot."""
    missing: tuple[int, ...] = ()
    """Indexes that need a node."""
    fixed: Mapping[int, str] = field(default_factory=dict)
    """Node of each index that stays where it is."""
    hint: Mapping[int, str] = field(default_factory=dict)
    """Node where a missing index ran before: taken again if it still fits."""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    node_affinity: tuple[Term, ...] = ()
    """Required terms, one of which must match; none: no rule."""
    tolerations: tuple[Toleration, ...] = ()
    host_ports: tuple[HostPort, ...] = ()
    topology: TopologyRequest = field(default_factory=TopologyRequest)
    avoid: frozenset[str] = frozenset()
    """Nodes that must not be used: they failed or refused the gang lately."""

    def __post_init__(self) -> None:
        where = f"gang {self.key[0]}/{self.key[1]}"
        for at in (*self.missing, *self.fixed):
            if not 0 <= at < self.replicas:
                raise ValueError(f"{where}: index {at} is outside 0..{self.replicas - 1}")
        if len(set(self.missing)) != len(self.missing):
            raise ValueError(f"{where}: missing names an index twice: {self.missing}")
        if both := [at for at in self.missing if at in self.fixed]:
            raise ValueError(f"{where}: indexes {both} are both missing and fixed")

    @classmethod
    def fresh(cls, key: Key, replicas: int, requests: Amounts, **rest: Any) -> "GangRequest":
        """A gang none of whose ranks has a node."""
        return cls(key, replicas, requests, missing=tuple(range(replicas)), **rest)

    @property
    def repair(self) -> bool:
        """Some of its ranks have a node."""
        return bool(self.fixed)

    @property
    def total(self) -> dict[str, int]:
        """What the whole gang requests."""
        return {resource: amount * self.replicas for resource, amount in self.requests.items()}

    @property
    def shape(self) -> tuple[object, ...]:
        """Equal for requests that fit in the same snapshots: all but the key and the hints."""
        return (
            self.replicas,
            self.missing,
            frozenset(self.fixed.items()),
            frozenset((r, a) for r, a in self.requests.items() if a > 0),
            self.node_rules,
            self.host_ports,
            (
                self.topology.required,
                self.topology.preferred,
                self.topology.group_size,
                self.topology.group_level,
            ),
            self.avoid,
        )

    @property
    def node_rules(self) -> tuple[object, ...]:
        """Equal for requests that the same nodes suit, whatever is free on them."""
        return frozenset(self.node_selector.items()), self.node_affinity, self.tolerations


def rules_of_pod(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of GangRequest that a pod spec (as JSON) decides, all but ``requests``."""
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
