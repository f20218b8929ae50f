"""Short ways to write jobs, pods, nodes and reports in tests."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from drakkar.protocol import Member, Report
from drakkar.v1alpha1 import TrainingJobSpec, TrainingJobStatus
from drakkar.v1alpha1.trainingjob import Placement, Progress
from drakkar_operator.model import JobView, NodeView, PodView
from drakkar_operator.reconcile.actions import CreatePod, DeletePod, Plan, RecordEvent

NOW = 1_800_000_000.0
REPLICAS = 3


def job(status: TrainingJobStatus | None = None, **spec: Any) -> JobView:
    """A job of three replicas running the pretrain recipe unless the spec says otherwise."""
    given: dict[str, Any] = {
        "replicas": REPLICAS,
        "recipe": {"name": "pretrain", "config": {"batchSize": 96}},
        "faultTolerance": {"backoffSeconds": 0},
        **spec,
    }
    return JobView(
        namespace="ml",
        name="gpt",
        uid="job-uid",
        generation=1,
        created=NOW - 100,
        spec=TrainingJobSpec.model_validate({k: v for k, v in given.items() if v is not None}),
        status=status or TrainingJobStatus(),
    )


def after(view: JobView, plan: Plan) -> JobView:
    """The job once the plan's status is written."""
    return replace(view, status=plan.status)


def node(name: str, **changes: Any) -> NodeView:
    """A healthy node with room for many pods."""
    amounts = {"cpu": 64_000, "memory": 2**40, "pods": 110}
    return replace(NodeView(name, {"kubernetes.io/hostname": name}, amounts), **changes)


NODES = {name: node(name) for name in ("a", "b", "c", "d")}
PLACEMENT = Placement(level="cluster", domain="", nodes=["a", "b", "c"])


def pod(replica: int, **changes: Any) -> PodView:
    """A running pod of the job on the node that PLACEMENT gives its replica."""
    base = PodView(
        namespace="ml",
        name=f"gpt-{replica}",
        uid=f"uid-{replica}",
        node=PLACEMENT.nodes[replica],
        phase="Running",
        requests={"cpu": 500, "pods": 1},
        created=NOW - 50,
        ip=f"10.0.0.{replica}",
        job="gpt",
        job_uid="job-uid",
        replica=replica,
        running=True,
    )
    return replace(base, **changes)


def gang() -> list[PodView]:
    """All pods of the job, running."""
    return [pod(replica) for replica in range(REPLICAS)]


def report(state: str = "running", **changes: Any) -> Report:
    """What the coordinator says of a whole gang at step 40."""
    given: dict[str, Any] = {
        "uid": "job-uid",
        "pod_uid": "uid-0",
        "version": 7,
        "epoch": 1,
        "state": state,
        "members": [
            Member(
                replica=r,
                pod=f"gpt-{r}",
                node=PLACEMENT.nodes[r],
                state="running",
                heartbeat_age_seconds=0.3,
            )
            for r in range(REPLICAS)
        ],
        "progress": Progress(step=40, total_steps=100, loss=2.5),
        "time": datetime.fromtimestamp(NOW, UTC),
        **changes,
    }
    return Report(**given)


def admitted(**changes: Any) -> TrainingJobStatus:
    """Status of a placed job whose pods may not exist yet."""
    return TrainingJobStatus(placement=PLACEMENT, **changes)


def created(plan: Plan) -> list[tuple[int, str]]:
    """(replica, node) of each pod that a plan creates."""
    return [(a.replica, a.node) for a in plan.actions if isinstance(a, CreatePod)]


def deleted(plan: Plan) -> dict[str, bool]:
    """Name of each pod that a plan deletes: whether by force."""
    return {a.name: a.grace_seconds == 0 for a in plan.actions if isinstance(a, DeletePod)}


def events(plan: Plan) -> list[str]:
    """Reasons of the events that a plan records."""
    return [a.reason for a in plan.actions if isinstance(a, RecordEvent)]


def truth(plan: Plan) -> dict[str, str]:
    """Status of each condition."""
    return {c.type: c.status for c in plan.status.conditions}
