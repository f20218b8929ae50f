"""Which nodes are slower than they should be. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median_high

from drakkar.check.results import NodeResult

COMPUTE, LINK, ERROR = "SlowCompute", "SlowLink", "NotMeasured"


@dataclass(frozen=True, slots=True)
class Limits:
    """What is too slow."""

    compute: float = 0.85
    """Part of the median of all devices of the kind that each must reach."""
    link: float = 0.7
    """Part of the median of all nodes that the best of a node's pairs must reach."""
    peak: float = 0.4
    """Part of the catalogue's peak that each device must reach in a matrix product."""
    network: float = 0.25
    """Part of the catalogue's network bandwidth that the best of a node's pairs must reach. The figure
    is that of the vendor's usual server, and clouds have smaller ones: this is for a network that is
    not used at all."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the catalogue says of a node's devices."""

    model: str = ""
    teraflops: float | None = None
    gbps: float | None = None
    """Of the network, per device."""
    unconfirmed: frozenset[str] = frozenset()
    """Those of "teraflops" and "gbps" that the catalogue calls unconfirmed."""

    def doubt(self, figure: str) -> str:
        """What to say behind a finding that rests on a figure."""
        return "; the catalogue's figure is unconfirmed" if figure in self.unconfirmed else ""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with a node, with the numbers that show it."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check says of a node."""

    node: str
    findings: tuple[Finding, ...]
    summary: str
    """The measured numbers."""

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def judge(
    results: Sequence[NodeResult],
    limits: Limits = Limits(),
    expected: Mapping[str, Expected] | None = None,
) -> list[Verdict]:
    """A verdict for each node, in their order.

    A node is compared with the fleet: nodes with the same kind of device. A device counts by itself,
    so one slow GPU of eight is found. A node's link counts by its best pair: its partner may be the
    slow one. So with two nodes a slow link can't be told from its peer, and none is blamed.
    """
    expected = expected or {}
    kinds: dict[tuple[str, str], list[float]] = {}
    for result in results:
        kinds.setdefault(_kind(result, expected), []).extend(result.teraflops)
    best = {r.node: max((p.gbps for p in r.pairs), default=None) for r in results}
    measured = [gbps for gbps in best.values() if gbps is not None]
    usual = median_high(measured) if measured else 0.0
    return [
        Verdict(
            result.node,
            (
                *_error(result),
                *_compute(result, kinds[_kind(result, expected)], limits),
                *_peak(result, expected.get(result.node, Expected()), limits),
                *_link(result, best[result.node], usual, limits),
                *_network(result, best[result.node], expected.get(result.node, Expected()), limits),
            ),
            _summary(result, best[result.node]),
        )
        for result in results
    ]


def _kind(result: NodeResult, expected: Mapping[str, Expected]) -> tuple[str, str]:
    return result.accelerator, expected.get(result.node, Expected()).model


def _error(result: NodeResult) -> Iterable[Finding]:
    if result.error:
        yield Finding(ERROR, result.error)


def _compute(result: NodeResult, fleet: Sequence[float], limits: Limits) -> Iterable[Finding]:
    if not result.teraflops:
        return
    usual, worst = median_high(fleet), min(result.teraflops)
    if worst < limits.compute * usual:
        device = result.teraflops.index(worst)
        yield Finding(
            COMPUTE,
            f"{result.accelerator} {device} does {_show(worst)} TFLOP/s, {worst / usual:.0%} of the "
            f"fleet's median of {_show(usual)} (at least {limits.compute:.0%} wanted)",
        )


def _peak(result: NodeResult, expected: Expected, limits: Limits) -> Iterable[Finding]:
    if not result.teraflops or expected.teraflops is None or result.accelerator == "cpu":
        return
    worst = min(result.teraflops)
    if worst < limits.peak * expected.teraflops:
        yield Finding(
            COMPUTE,
            f"{result.accelerator} {result.teraflops.index(worst)} does {_show(worst)} TFLOP/s, "
            f"{worst / expected.teraflops:.0%} of the peak of {expected.model}, "
            f"{_show(expected.teraflops)} (at least {limits.peak:.0%} wanted)"
            f"{expected.doubt('teraflops')}",
        )


def _link(
    result: NodeResult, best: float | None, usual: float, limits: Limits
) -> Iterable[Finding]:
    if best is not None and best < limits.link * usual:
        peer = max(result.pairs, key=lambda pair: pair.gbps).peer
        yield Finding(
            LINK,
            f"the best of {len(result.pairs)} links, to {peer}, does {_show(best)} Gbit/s, "
            f"{best / usual:.0%} of the fleet's median of {_show(usual)} "
            f"(at least {limits.link:.0%} wanted)",
        )


def _network(
    result: NodeResult, best: float | None, expected: Expected, limits: Limits
) -> Iterable[Finding]:
    if best is None or expected.gbps is None or result.accelerator == "cpu":
        return
    if best < limits.network * expected.gbps:
        yield Finding(
            LINK,
            f"the best of {len(result.pairs)} links does {_show(best)} Gbit/s, "
            f"{best / expected.gbps:.0%} of the network of a usual server with {expected.model}, "
            f"{_show(expected.gbps)} (at least {limits.network:.0%} wanted)"
            f"{expected.doubt('gbps')}",
        )


def _summary(result: NodeResult, best: float | None) -> str:
    parts = []
    if result.teraflops:
        parts.append(f"{_show(min(result.teraflops))} TFLOP/s on {result.accelerator}")
    if best is not None:
        parts.append(f"{_show(best)} Gbit/s all-reduce with the nearest")
    return ", ".join(parts) or "nothing measured"


def _show(value: float) -> str:
    return f"{value:.3g}"
