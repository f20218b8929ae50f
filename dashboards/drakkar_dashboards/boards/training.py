"""A training job: how far, how fast, where its time goes, which rank is slow."""

from drakkar_dashboards.model import Dashboard, Marks, Panel, Row, Variable, q

JOB = 'namespace="$namespace",job="$job"'


def one(name: str) -> str:
    """A figure of the whole gang, which one pod tells; others may tell it for a moment longer."""
    return f"max({name}{{{JOB}}})"


BOARD = Dashboard(
    uid="drakkar-training",
    title="Drakkar / Training job",
    description="How far and how fast a job is, where its time goes, and which rank is slow.",
    variables=(
        Variable("namespace", "Namespace", "drakkar_training_step", "namespace", many=False),
        Variable("job", "Job", 'drakkar_training_step{namespace="$namespace"}', "job", many=False),
    ),
    marks=(
        Marks(
            "Restarts in place",
            f"sum by (reason) (increase(drakkar_gang_restarts_total{{{JOB}}}[1m])) > 0",
            "{{reason}}",
        ),
        Marks(
            "Another gang",
            f"max(changes(drakkar_agent_epoch{{{JOB}}}[1m])) > 0",
            "all ranks meet again",
            "blue",
        ),
    ),
    rows=(
        Row(
            "Progress",
            (
                Panel(
                    "Done",
                    "percentunit",
                    (
                        q(
                            f"{one('drakkar_training_step')} / "
                            f"{one('drakkar_training_total_steps')}",
                            "steps",
                        ),
                    ),
                    view="stat",
                    width=4,
                    height=5,
                    top=1,
                ),
                Panel(
                    "MFU",
                    "percentunit",
                    (q(one("drakkar_training_mfu_ratio"), "MFU"),),
                    view="stat",
                    width=4,
                    height=5,
                    help="Model FLOP/s over what the devices could do at their peak.",
                ),
                Panel(
                    "Goodput",
                    "percentunit",
                    (q(one("drakkar_gang_goodput_ratio"), "goodput"),),
                    view="stat",
                    width=4,
                    height=5,
                    top=1,
                    warn=0.9,
                    alarm=0.7,
                ),
                Panel(
                    "Tokens per second",
                    "short",
                    (q(one("drakkar_training_tokens_per_second"), "tokens/s"),),
                    view="stat",
                    width=4,
                    height=5,
                ),
                Panel(
                    "Slow ranks",
                    "short",
                    (q(one("drakkar_job_stragglers"), "ranks"),),
                    view="stat",
                    width=4,
                    height=5,
                    warn=1,
                    alarm=2,
                    help="drakkar describe names them and says by how much.",
                ),
                Panel(
                    "Not saved for",
                    "s",
                    (q(f"time() - {one('drakkar_job_safe_timestamp_seconds')}", "on storage"),),
                    view="stat",
                    width=4,
                    height=5,
                    help="Since the newest checkpoint on storage.",
                ),
                Panel(
                    "Loss",
                    "none",
                    (
                        q(one("drakkar_training_loss"), "training"),
                        q(one("drakkar_training_eval_loss"), "held out"),
                    ),
                    help="Nats per token.",
                ),
                Panel(
                    "Throughput",
                    "short",
                    (q(one("drakkar_training_tokens_per_second"), "tokens/s"),),
                ),
                Panel(
                    "Model FLOP/s utilisation",
                    "percentunit",
                    (q(one("drakkar_training_mfu_ratio"), "MFU"),),
                ),
            ),
        ),
        Row(
            "Time",
            (
                Panel(
                    "Where the gang's time goes",
                    "percentunit",
                    (
                        q(
                            f"sum by (book) (drakkar_gang_seconds{{{JOB}}}) / ignoring(book) "
                            f"group_left sum(drakkar_gang_seconds{{{JOB}}})",
                            "{{book}}",
                        ),
                    ),
                    stacked=True,
                    top=1,
                    help="Since its first coordinator started; the books add up to all of it.",
                ),
                Panel(
                    "Of the job's whole life",
                    "s",
                    (q(f"sum by (book) (drakkar_job_seconds{{{JOB}}})", "{{book}}"),),
                    view="bargauge",
                    help="The time in the queue included.",
                ),
                Panel(
                    "Trainers that ended",
                    "short",
                    (
                        q(
                            f"sum by (outcome) (drakkar_agent_trainer_exits_total{{{JOB}}})",
                            "{{outcome}}",
                        ),
                        q(
                            f"sum by (reason) (drakkar_gang_restarts_total{{{JOB}}})",
                            "restart in place: {{reason}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Ranks",
            (
                Panel(
                    "Step time per rank",
                    "s",
                    (q(f"max by (rank) (drakkar_training_step_seconds{{{JOB}}})", "{{rank}}"),),
                    view="heatmap",
                    width=12,
                    help="A row that is brighter than the others is slow by itself; where all are, "
                    "they wait for one.",
                ),
                Panel(
                    "Step per rank",
                    "short",
                    (q(f"max by (rank) (drakkar_training_step{{{JOB}}})", "{{rank}}"),),
                    width=12,
                    help="In a hang the rank that stays behind is where to look.",
                ),
                Panel(
                    "Silence of replicas",
                    "s",
                    (q(one("drakkar_gang_heartbeat_age_seconds"), "longest"),),
                ),
                Panel(
                    "Checkpoints in memory",
                    "bytes",
                    (
                        q(
                            f"sum by (pod) (drakkar_agent_memory_checkpoint_bytes{{{JOB}}})",
                            "{{pod}}",
                        ),
                    ),
                ),
                Panel(
                    "Sent to peers",
                    "Bps",
                    (
                        q(
                            "sum(rate(drakkar_agent_copied_bytes_total"
                            f"{{{JOB}}}[$__rate_interval]))",
                            "copies of checkpoints",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Devices",
            (
                Panel(
                    "Utilisation",
                    "percentunit",
                    (
                        q(
                            f"avg by (rank) (drakkar_device_utilization_ratio{{{JOB}}})",
                            "rank {{rank}}",
                        ),
                    ),
                    top=1,
                ),
                Panel(
                    "Memory",
                    "percentunit",
                    (
                        q(
                            f"sum by (rank) (drakkar_device_memory_used_bytes{{{JOB}}}) / "
                            f"sum by (rank) (drakkar_device_memory_total_bytes{{{JOB}}})",
                            "rank {{rank}}",
                        ),
                    ),
                    top=1,
                ),
                Panel(
                    "Power",
                    "watt",
                    (q(f"sum by (rank) (drakkar_device_power_watts{{{JOB}}})", "rank {{rank}}"),),
                ),
                Panel(
                    "Temperature",
                    "celsius",
                    (
                        q(
                            f"max by (rank) (drakkar_device_temperature_celsius{{{JOB}}})",
                            "rank {{rank}}",
                        ),
                    ),
                    width=12,
                ),
                Panel(
                    "Errors on links",
                    "cps",
                    (
                        q(
                            "sum by (rank, kind) (rate(drakkar_device_link_errors_total"
                            f"{{{JOB}}}[$__rate_interval]))",
                            "rank {{rank}}: {{kind}}",
                        ),
                    ),
                    width=12,
                ),
            ),
        ),
    ),
)
