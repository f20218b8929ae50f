"""docs/reference/metrics.md, from what the components tell: python -m support.metrics_page."""

from pathlib import Path

from prometheus_client.core import Metric

from support.exposition import Component, components

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
HEAD = """# Metrics

Made from what the components tell (`make generate`). All are scraped at `/metrics`; the chart's
monitors add `namespace`, `pod` and, for training pods, `job`, `replica` and `queue`, for those of
services `service`. Labels with many values are those that name jobs, pods, nodes and devices that are
there at the moment.
"""
TITLES = {
    "operator": "Operator\n\nOf jobs, queues and nodes only the replica that leads tells.",
    "agent": "Agents of training pods\n\n`drakkar_gang_*` come from the coordinator, what is told of "
    "the whole gang from rank 0.",
    "devices": "Devices of a node\n\nWhich of them there are depends on the vendor: "
    "[vendors](../how-to/vendors.md).",
    "server": "Model server\n\nUnder vLLM's names.",
    "router": "Router",
    "web": "API server of the web pages",
}
SPECIAL = {
    "drakkar_training_loss": "nats per token",
    "drakkar_training_eval_loss": "nats per token",
    "drakkar_training_tokens_per_second": "tokens per second",
    **dict.fromkeys(
        [
            *(f"drakkar_domain_{what}" for what in ("free", "allocatable")),
            *(f"drakkar_queue_{what}" for what in ("used", "borrowed", "lent", "quota")),
        ],
        "the resource's",
    ),
}
UNITS = ("seconds", "bytes", "ratio", "celsius", "watts", "hertz")


def page() -> str:
    """The whole page."""
    return HEAD + "".join(_section(part) for part in components())


def _section(part: Component) -> str:
    part.step()
    rows = sorted(_row(family) for family in part.registry.collect() if family.samples)
    lines = "\n".join(rows)
    return (
        f"\n## {TITLES[part.name]}\n\n"
        f"| Metric | Type | Unit | Labels | Meaning |\n| --- | --- | --- | --- | --- |\n{lines}\n"
    )


def _row(family: Metric) -> str:
    name = family.name + ("_total" if family.type == "counter" else "")
    name += "_info" if family.type == "info" else ""
    labels = {label for sample in family.samples for label in sample.labels} - {"le"}
    shown = ", ".join(f"`{label}`" for label in sorted(labels))
    return f"| `{name}` | {family.type} | {unit(family)} | {shown} | {family.documentation} |"


def unit(family: Metric) -> str:
    """From the name's last word, as Prometheus has it."""
    if family.name in SPECIAL:
        return SPECIAL[family.name]
    if family.type == "info" or family.name.endswith("_info"):
        return ""
    if family.name.endswith("_timestamp_seconds"):
        return "seconds since the epoch"
    last = family.name.rsplit("_", 1)[-1]
    if last in UNITS:
        return "0 to 1" if last == "ratio" else last
    return "0 to 1" if family.name.endswith("_perc") else "count"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
