"""Queues and fairness: who waits, for how long, who uses more than its share."""

from drakkar_dashboards.model import Dashboard, Panel, Row, Variable, q

QUEUE = 'queue=~"$queue"'
AMOUNT = 'queue=~"$queue",resource="$resource"'

BOARD = Dashboard(
    uid="drakkar-queues",
    title="Drakkar / Queues and fairness",
    description="Who waits, for how long, and who uses more or less than its share.",
    variables=(
        Variable("queue", "Queue", "drakkar_queue_jobs", "queue"),
        Variable("resource", "Resource", "drakkar_queue_used", "resource", many=False),
    ),
    rows=(
        Row(
            "Waiting",
            (
                Panel(
                    "Jobs that wait",
                    "short",
                    (
                        q(
                            f'sum by (queue) (drakkar_queue_jobs{{{QUEUE},state="pending"}})',
                            "{{queue}}",
                        ),
                    ),
                ),
                Panel(
                    "Longest wait so far",
                    "s",
                    (
                        q(
                            "max by (queue) (drakkar_queue_oldest_wait_seconds"
                            '{queue=~"$queue|none"})',
                            "{{queue}}",
                        ),
                    ),
                    help="Of jobs that still wait; none: jobs without a queue.",
                ),
                Panel(
                    "Wait of jobs that got a place",
                    "s",
                    (
                        q("drakkar:queue_wait_seconds:p50_1h", "{{queue}}, median"),
                        q("drakkar:queue_wait_seconds:p95_1h", "{{queue}}, 95th percentile"),
                    ),
                    help="Over the last hour.",
                ),
                Panel(
                    "Waits",
                    "s",
                    (
                        q(
                            "sum by (le) (increase(drakkar_queue_wait_seconds_bucket"
                            '{queue=~"$queue|none"}[$__rate_interval]))',
                            "{{le}}",
                        ),
                    ),
                    view="heatmap",
                    width=12,
                    buckets=True,
                ),
                Panel(
                    "Decisions of the scheduler",
                    "cps",
                    (
                        q(
                            "sum by (outcome) (rate(drakkar_operator_scheduling_decisions_total"
                            "[$__rate_interval]))",
                            "{{outcome}}",
                        ),
                    ),
                    width=12,
                ),
            ),
        ),
        Row(
            "Fairness",
            (
                Panel(
                    "Part of the cluster over fair share",
                    "percentunit",
                    (
                        q(
                            f"sum by (queue) (drakkar_queue_share_ratio{{{QUEUE}}}) / "
                            f"(sum by (queue) (drakkar_queue_fair_share_ratio{{{QUEUE}}}) > 0)",
                            "{{queue}}",
                        ),
                    ),
                    help="100 %: the queue uses what its weight gives it. Below, with jobs that "
                    "wait: it is starved.",
                ),
                Panel(
                    "Part of the cluster",
                    "percentunit",
                    (
                        q(
                            f"sum by (queue) (drakkar_queue_share_ratio{{{QUEUE}}})",
                            "{{queue}}",
                        ),
                    ),
                    stacked=True,
                ),
                Panel(
                    "Fair share",
                    "percentunit",
                    (
                        q(
                            f"sum by (queue) (drakkar_queue_fair_share_ratio{{{QUEUE}}})",
                            "{{queue}}",
                        ),
                    ),
                    stacked=True,
                ),
            ),
        ),
        Row(
            "Quota of $resource",
            (
                Panel(
                    "Used",
                    "short",
                    (q(f"sum by (queue) (drakkar_queue_used{{{AMOUNT}}})", "{{queue}}"),),
                    stacked=True,
                ),
                Panel(
                    "Used of the quota",
                    "percentunit",
                    (
                        q(
                            f"sum by (queue) (drakkar_queue_used{{{AMOUNT}}}) / "
                            f"sum by (queue) (drakkar_queue_quota{{{AMOUNT}}})",
                            "{{queue}}",
                        ),
                    ),
                    view="bargauge",
                    help="Above 100 %: borrowed from other queues.",
                ),
                Panel(
                    "Borrowed and lent",
                    "short",
                    (
                        q(
                            f"sum by (queue) (drakkar_queue_borrowed{{{AMOUNT}}})",
                            "{{queue}} borrows",
                        ),
                        q(f"sum by (queue) (drakkar_queue_lent{{{AMOUNT}}})", "{{queue}} lends"),
                    ),
                ),
            ),
        ),
    ),
)
