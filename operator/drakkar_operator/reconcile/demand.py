"""What a job asks of the scheduler, read from the pods it would get."""

from collections.abc import Mapping

from drakkar_operator.model import JobView
from drakkar_operator.render.pods import training_pod
from drakkar_operator.render.resources import pod_requests
from drakkar_operator.render.settings import WorkerSettings
from drakkar_operator.scheduling.request import GangRequest, rules_of_pod

_ANY_IMAGE = WorkerSettings(image="any")
"""Settings don't change what a pod asks for."""


def gang_request(
    job: JobView,
    missing: tuple[int, ...],
    *,
    fixed: Mapping[int, str] | None = None,
    avoid: frozenset[str] = frozenset(),
) -> GangRequest:
    """The request for the missing replicas of a gang whose other replicas stay where they are.

    Raises ValueError if the template's quantities or terms are malformed.
    """
    spec = training_pod(job, 0, "", _ANY_IMAGE)["spec"]
    return GangRequest(
        key=job.key,
        replicas=job.spec.replicas,
        requests=pod_requests(spec),
        missing=missing,
        fixed=fixed or {},
        topology=job.spec.topology,
        avoid=avoid,
        **rules_of_pod(spec),
    )
