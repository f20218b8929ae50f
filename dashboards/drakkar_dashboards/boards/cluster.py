"""The cluster and its topology: what runs, what is free and where, what goes wrong."""

from drakkar_dashboards.model import Dashboard, Marks, Panel, Row, Variable, q

RESTARTS = Marks(
    "Restarts",
    "sum by (scope, reason) (increase(drakkar_operator_restarts_total[1m])) > 0",
    "{{scope}}: {{reason}}",
)

BOARD = Dashboard(
    uid="drakkar-cluster",
    title="Drakkar / Cluster and topology",
    description="What runs, what is free and in which domains, and what goes wrong.",
    variables=(
        Variable("resource", "Resource", "drakkar_domain_allocatable", "resource", many=False),
        Variable(
            "level", "Level", 'drakkar_domain_allocatable{level!="cluster"}', "level", many=False
        ),
    ),
    marks=(RESTARTS,),
    rows=(
        Row(
            "Now",
            (
                Panel(
                    "Nodes",
                    "short",
                    (q("sum by (state) (drakkar_nodes)", "{{state}}"),),
                    view="stat",
                    width=8,
                    height=5,
                    help="faulty: ready, but some device is not well. lost: not ready.",
                ),
                Panel(
                    "Jobs",
                    "short",
                    (
                        q(
                            """sum by (phase) (drakkar_operator_trainingjobs
                            {phase!~"Complete|Failed"})""",
                            "{{phase}}",
                        ),
                    ),
                    view="stat",
                    width=8,
                    height=5,
                ),
                Panel(
                    "Goodput of the fleet",
                    "percentunit",
                    (q("drakkar:fleet_goodput:ratio", "goodput"),),
                    view="stat",
                    width=4,
                    height=5,
                    top=1,
                    warn=0.9,
                    alarm=0.7,
                    help="Time in steps that count, of all time of the jobs that have not ended, "
                    "waiting in queues left out.",
                ),
                Panel(
                    "In use",
                    "percentunit",
                    (
                        q(
                            """1 - sum(drakkar_domain_free{level="cluster",resource="$resource"})
                            / sum(drakkar_domain_allocatable
                            {level="cluster",resource="$resource"})""",
                            "$resource",
                        ),
                    ),
                    view="stat",
                    width=4,
                    height=5,
                    top=1,
                ),
            ),
        ),
        Row(
            "Room",
            (
                Panel(
                    "In use and free",
                    "short",
                    (
                        q(
                            """sum(drakkar_domain_allocatable
                            {level="cluster",resource="$resource"}) - sum(drakkar_domain_free
                            {level="cluster",resource="$resource"})""",
                            "in use",
                        ),
                        q(
                            'sum(drakkar_domain_free{level="cluster",resource="$resource"})',
                            "free",
                        ),
                    ),
                    stacked=True,
                ),
                Panel(
                    "Free by domain",
                    "short",
                    (
                        q(
                            """sum by (domain) (drakkar_domain_free
                            {level="$level",resource="$resource"})""",
                            "{{domain}}",
                        ),
                    ),
                    view="bargauge",
                    help="A gang that must stay in one domain needs its room in one bar.",
                ),
                Panel(
                    "In use by domain",
                    "percentunit",
                    (
                        q(
                            """1 - sum by (domain) (drakkar_domain_free
                            {level="$level",resource="$resource"}) / sum by (domain)
                            (drakkar_domain_allocatable{level="$level",resource="$resource"})""",
                            "{{domain}}",
                        ),
                    ),
                    view="heatmap",
                    top=1,
                ),
                Panel(
                    "Fragmentation",
                    "percentunit",
                    (q("drakkar:fragmentation:ratio", "of free devices"),),
                    top=1,
                    help="Expected part of the free devices that the jobs which were asked for of "
                    "late could not use.",
                ),
                Panel(
                    "Free devices of no use",
                    "short",
                    (q("sum(drakkar_cluster_unusable_devices)", "devices"),),
                ),
                Panel(
                    "Nodes by state",
                    "short",
                    (q("sum by (state) (drakkar_nodes)", "{{state}}"),),
                    stacked=True,
                ),
            ),
        ),
        Row(
            "What goes wrong",
            (
                Panel(
                    "Restarts by cause",
                    "short",
                    (q("drakkar:restarts_by_cause:increase1h", "{{reason}} ({{scope}})"),),
                    width=12,
                    help="Interruptions of jobs in the last hour.",
                ),
                Panel(
                    "Nodes with restarts",
                    "short",
                    (q("topk(20, sum by (node) (drakkar_node_blamed_restarts))", "{{node}}"),),
                    view="bargauge",
                    width=12,
                    help="Restarts of the last hour whose cause was on the node. A node that "
                    "stands out is suspect: drakkar node check.",
                ),
            ),
        ),
    ),
)
