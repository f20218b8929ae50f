"""Nodes and their accelerators: load, heat, faults, who has them."""

from drakkar_dashboards.model import Dashboard, Panel, Row, Variable, q

HERE = 'node=~"$node",vendor=~"$vendor"'
WINDOW = "[$__rate_interval]"

BOARD = Dashboard(
    uid="drakkar-devices",
    title="Drakkar / Nodes and devices",
    description="Load, heat and faults of accelerators, and whose they are.",
    variables=(
        Variable("vendor", "Vendor", "drakkar_device_info", "vendor"),
        Variable("node", "Node", 'drakkar_device_info{vendor=~"$vendor"}', "node"),
    ),
    rows=(
        Row(
            "Health",
            (
                Panel(
                    "Devices that pods may get",
                    "percentunit",
                    (q(f"avg(drakkar_device_healthy{{{HERE}}})", "healthy"),),
                    view="stat",
                    width=4,
                    height=6,
                    top=1,
                    warn=0.99,
                    alarm=0.95,
                ),
                Panel(
                    "Devices in use",
                    "percentunit",
                    (
                        q(
                            f'count(drakkar_device_healthy{{{HERE},pod!=""}}) / '
                            f"count(drakkar_device_healthy{{{HERE}}})",
                            "held by pods",
                        ),
                    ),
                    view="stat",
                    width=4,
                    height=6,
                    top=1,
                ),
                Panel(
                    "Age of readings",
                    "s",
                    (q('max(drakkar_device_reading_age_seconds{node=~"$node"})', "oldest"),),
                    view="stat",
                    width=4,
                    height=6,
                    warn=30,
                    alarm=60,
                    help="A driver that hangs lets it grow.",
                ),
                Panel(
                    "Faults",
                    "short",
                    (
                        q(
                            "sum by (node, device, code, severity) "
                            f"(drakkar_device_fault{{{HERE}}})",
                            "{{node}} {{device}}",
                        ),
                    ),
                    view="table",
                    width=12,
                    height=6,
                    help="docs/how-to/devices.md says what each code means.",
                ),
            ),
        ),
        Row(
            "Load",
            (
                Panel(
                    "Utilisation",
                    "percentunit",
                    (q(f"avg by (node) (drakkar_device_utilization_ratio{{{HERE}}})", "{{node}}"),),
                    top=1,
                ),
                Panel(
                    "Utilisation by job",
                    "percentunit",
                    (
                        q(
                            "avg by (namespace, job) (drakkar_device_utilization_ratio"
                            f'{{{HERE},job!=""}})',
                            "{{namespace}}/{{job}}",
                        ),
                    ),
                    top=1,
                ),
                Panel(
                    "Memory",
                    "percentunit",
                    (
                        q(
                            f"sum by (node) (drakkar_device_memory_used_bytes{{{HERE}}}) / "
                            f"sum by (node) (drakkar_device_memory_total_bytes{{{HERE}}})",
                            "{{node}}",
                        ),
                    ),
                    top=1,
                ),
                Panel(
                    "Power",
                    "watt",
                    (q(f"sum by (node) (drakkar_device_power_watts{{{HERE}}})", "{{node}}"),),
                    stacked=True,
                ),
                Panel(
                    "Power of the limit",
                    "percentunit",
                    (
                        q(
                            f"sum by (node) (drakkar_device_power_watts{{{HERE}}}) / "
                            f"sum by (node) (drakkar_device_power_limit_watts{{{HERE}}})",
                            "{{node}}",
                        ),
                    ),
                    top=1,
                ),
                Panel(
                    "Use of memory bandwidth",
                    "percentunit",
                    (
                        q(
                            f"avg by (node) (drakkar_device_memory_bandwidth_ratio{{{HERE}}})",
                            "{{node}}",
                        ),
                    ),
                    top=1,
                ),
            ),
        ),
        Row(
            "Heat and errors",
            (
                Panel(
                    "Hottest device",
                    "celsius",
                    (
                        q(
                            f"max by (node) (drakkar_device_temperature_celsius{{{HERE}}})",
                            "{{node}}",
                        ),
                    ),
                ),
                Panel(
                    "Clocks",
                    "hertz",
                    (
                        q(
                            f"avg by (node, clock) (drakkar_device_clock_hertz{{{HERE}}})",
                            "{{node}} {{clock}}",
                        ),
                    ),
                ),
                Panel(
                    "Throttled devices",
                    "short",
                    (
                        q(
                            f"sum by (node, reason) (drakkar_device_throttled{{{HERE}}})",
                            "{{node}}: {{reason}}",
                        ),
                    ),
                ),
                Panel(
                    "Memory errors",
                    "cps",
                    (
                        q(
                            "sum by (node, kind) (rate(drakkar_device_ecc_errors_total"
                            f"{{{HERE}}}{WINDOW}))",
                            "{{node}}: {{kind}}",
                        ),
                    ),
                ),
                Panel(
                    "Errors on links",
                    "cps",
                    (
                        q(
                            "sum by (node, kind) (rate(drakkar_device_link_errors_total"
                            f"{{{HERE}}}{WINDOW}))",
                            "{{node}}: {{kind}}",
                        ),
                    ),
                ),
                Panel(
                    "Vendors that answer",
                    "bool_on_off",
                    (
                        q(
                            f"min by (node, vendor) (drakkar_device_vendor_up{{{HERE}}})",
                            "{{node}} {{vendor}}",
                        ),
                    ),
                    view="state-timeline",
                ),
            ),
        ),
    ),
)
