"""A service's replica as a gang: what the scheduler sees of it, and its answer in the service's status.

A replica is placed, counted in its queue, displaced and waits like a TrainingJob's gang, by the same
code: it is shown to the scheduler as one. Its name there, "service/index", is one that no job can have.
"""

from datetime import UTC, datetime
from functools import lru_cache

from drakkar.v1alpha1.inferenceservice import (
    InferenceServiceSpec,
    InferenceServiceStatus,
    Member,
    Revision,
)
from drakkar.v1alpha1.meta import Condition
from drakkar.v1alpha1.trainingjob import FaultTolerance, TrainingJobSpec, TrainingJobStatus
from drakkar_operator.model import JobView, ServiceView, member_uid
from drakkar_operator.reconcile import conditions as cond
from drakkar_operator.reconcile.conditions import Reason
from drakkar_operator.reconcile.restarts import merge
from drakkar_operator.reconcile.serving.revisions import spec_of
from drakkar_operator.render.serving.pods import server_pod
from drakkar_operator.render.settings import WorkerSettings

_ANY = WorkerSettings(image="any")
"""Settings don't change what a pod asks for."""


def gang_name(service: str, member: str) -> str:
    """Name of a replica's gang."""
    return f"{service}/{member}"


def owner_key(key: str) -> str | None:
    """The service's key, for the key of one of its gangs ("namespace/service/member"); else None."""
    return key.rpartition("/")[0] if key.count("/") == 2 else None


def gang(service: ServiceView, member: Member) -> JobView | None:
    """A replica as the scheduler sees it; None if its revision is unknown or malformed."""
    revision = next((r for r in service.status.revisions if r.name == member.revision), None)
    if revision is None:
        return None
    try:
        spec = spec_of(service.spec, revision)
    except ValueError:
        return None
    placed = member.placement is not None
    admitted = Condition(
        type=cond.ADMITTED,
        status="True" if placed else "False",
        reason=Reason.PLACED if placed else Reason.WAITING,
        message=member.pending_reason or "",
        last_transition_time=member.asked,
    )
    return JobView(
        namespace=service.namespace,
        name=gang_name(service.name, member.name),
        uid=member_uid(service.uid, member.name, member.revision),
        generation=0,
        created=member.asked.timestamp(),
        spec=_gang_spec(service.name, spec.model_dump_json(by_alias=True), revision.name),
        status=TrainingJobStatus(
            conditions=[admitted],
            placement=member.placement,
            pending_reason=member.pending_reason,
        ),
        deleting=service.deleting,
    )


@lru_cache(maxsize=1024)
def _gang_spec(service: str, spec_json: str, revision: str) -> TrainingJobSpec:
    spec = InferenceServiceSpec.model_validate_json(spec_json)
    return TrainingJobSpec(
        queue=spec.queue,
        priority_class_name=spec.priority_class_name,
        replicas=spec.parallelism.pods,
        runtime="plain",
        template={"spec": pod_shape(service, spec, revision)},
        topology=spec.topology,
        fault_tolerance=FaultTolerance(spares=0),
        movable=False,
    )


def pod_shape(service: str, spec: InferenceServiceSpec, revision: str) -> dict[str, object]:
    """The spec of a replica's pods as far as placement asks; their names and places are any."""
    view = ServiceView(
        namespace="any", name=service, uid="", generation=0, created=0.0, spec=spec,
        status=InferenceServiceStatus(),
    )  # fmt: skip
    any_revision = Revision(name=revision, created=datetime.fromtimestamp(0, UTC), spec={})
    found: dict[str, object] = server_pod(view, spec, any_revision, "0", 0, "", _ANY)["spec"]
    return found


def with_answer(
    service: ServiceView, name: str, answer: TrainingJobStatus, now: float
) -> InferenceServiceStatus:
    """The service's status with what the scheduler decided on one of its replicas."""
    at = datetime.fromtimestamp(int(now), UTC)
    members = []
    for member in service.status.members:
        if member.name == name:
            changed = (member.placement is None) != (answer.placement is None)
            member = member.model_copy(
                update={
                    "placement": answer.placement,
                    "pending_reason": answer.pending_reason if answer.placement is None else None,
                    "asked": at if changed else member.asked,
                }
            )
        members.append(member)
    restarts, new = merge(service.status.restarts, answer.restarts)
    return service.status.model_copy(
        update={
            "members": members,
            "restarts": restarts[-20:],
            "restart_count": service.status.restart_count + len(new),
        }
    )
