"""The operator itself: whether it leads, keeps up, and what it asks of the API server."""

from drakkar_dashboards.boards.cluster import RESTARTS
from drakkar_dashboards.model import Dashboard, Panel, Row, q

WINDOW = "[$__rate_interval]"


def quantile(share: float, name: str, by: str = "") -> str:
    """Of a histogram of seconds."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({name}_bucket{WINDOW})))"


BOARD = Dashboard(
    uid="drakkar-operator",
    title="Drakkar / Operator",
    description="Whether the operator leads and keeps up, and what it asks of the API server.",
    marks=(RESTARTS,),
    rows=(
        Row(
            "State",
            (
                Panel(
                    "Replicas that lead",
                    "short",
                    (q("sum(drakkar_operator_leader)", "leaders"),),
                    view="stat",
                    width=4,
                    height=6,
                    help="1; 0 for a few seconds when the leader changes.",
                ),
                Panel(
                    "Keys that wait",
                    "short",
                    (q("sum(drakkar_operator_workqueue_depth)", "keys"),),
                    view="stat",
                    width=4,
                    height=6,
                ),
                Panel(
                    "Jobs by phase",
                    "short",
                    (q("sum by (phase) (drakkar_operator_trainingjobs)", "{{phase}}"),),
                    stacked=True,
                    height=6,
                ),
                Panel(
                    "Pods",
                    "cps",
                    (
                        q(f"sum(rate(drakkar_operator_pods_created_total{WINDOW}))", "created"),
                        q(f"sum(rate(drakkar_operator_pods_deleted_total{WINDOW}))", "deleted"),
                    ),
                    height=6,
                ),
            ),
        ),
        Row(
            "Work",
            (
                Panel(
                    "Time of a reconcile",
                    "s",
                    tuple(
                        q(quantile(share, "drakkar_operator_reconcile_duration_seconds"), word)
                        for share, word in ((0.5, "median"), (0.99, "99 %"))
                    ),
                ),
                Panel(
                    "Reconciles",
                    "ops",
                    (
                        q(
                            f"sum by (result) (rate(drakkar_operator_reconcile_total{WINDOW}))",
                            "{{result}}",
                        ),
                    ),
                ),
                Panel(
                    "Time to decide",
                    "s",
                    tuple(
                        q(quantile(share, "drakkar_operator_scheduling_cycle_seconds"), word)
                        for share, word in ((0.5, "median"), (0.99, "99 %"))
                    ),
                    help="On all waiting gangs together, without writing.",
                ),
                Panel(
                    "Answers of coordinators",
                    "ops",
                    (
                        q(
                            f"sum by (result) (rate(drakkar_operator_reports_total{WINDOW}))",
                            "{{result}}",
                        ),
                    ),
                ),
                Panel(
                    "Events that were dropped",
                    "cps",
                    (q(f"sum(rate(drakkar_operator_events_dropped_total{WINDOW}))", "events"),),
                ),
                Panel(
                    "Restarts by cause",
                    "short",
                    (q("drakkar:restarts_by_cause:increase1h", "{{reason}} ({{scope}})"),),
                ),
            ),
        ),
        Row(
            "API server",
            (
                Panel(
                    "Requests",
                    "reqps",
                    (
                        q(
                            "sum by (verb, code) "
                            f"(rate(drakkar_operator_api_requests_total{WINDOW}))",
                            "{{verb}} {{code}}",
                        ),
                    ),
                    help="Code 0: no answer.",
                ),
                Panel(
                    "Time of requests",
                    "s",
                    (
                        q(
                            quantile(0.99, "drakkar_operator_api_request_duration_seconds", "verb"),
                            "{{verb}}, 99 %",
                        ),
                    ),
                ),
                Panel(
                    "Watches and lists",
                    "cps",
                    (
                        q(
                            "sum by (resource) "
                            f"(rate(drakkar_operator_informer_watches_total{WINDOW}))",
                            "{{resource}}, watches",
                        ),
                        q(
                            "sum by (resource) "
                            f"(rate(drakkar_operator_informer_relists_total{WINDOW}))",
                            "{{resource}}, full lists",
                        ),
                    ),
                    help="Full lists are dear; many mean that watches break.",
                ),
            ),
        ),
        Row(
            "Web pages and history",
            (
                Panel(
                    "Requests",
                    "reqps",
                    (
                        q(
                            f"sum by (code) (rate(drakkar_server_requests_total{WINDOW}))",
                            "{{code}}",
                        ),
                    ),
                ),
                Panel(
                    "Time to answer",
                    "s",
                    (q(quantile(0.99, "drakkar_server_request_duration_seconds"), "99 %"),),
                    help="Streams left out.",
                ),
                Panel(
                    "Rows that wait for the database",
                    "short",
                    (q("sum(drakkar_server_history_waiting)", "rows"),),
                ),
            ),
        ),
    ),
)
