"""The table that a service's routers get."""

from collections.abc import Sequence

from drakkar.routing import Endpoint, Policy, Revision, RouteTable
from drakkar.v1alpha1.inferenceservice import Member, Traffic
from drakkar_operator.model import PodView, ServiceView


def route_table(
    service: ServiceView,
    members: Sequence[Member],
    pods: Sequence[PodView],
    traffic: Sequence[Traffic],
) -> RouteTable:
    """Every replica whose first pod has an address; version 0."""
    leaders = {
        pod.serving.member: pod
        for pod in pods
        if pod.serving is not None and pod.replica == 0 and pod.ip is not None
    }
    endpoints = [
        Endpoint(
            name=leaders[member.name].name,
            url=f"http://{_host(leaders[member.name].ip or '')}:{service.spec.runtime.port}",
            revision=member.revision,
            ready=member.state in ("Ready", "Draining"),
            draining=member.state == "Draining" or leaders[member.name].deleting,
        )
        for member in members
        if member.name in leaders and not leaders[member.name].finished
    ]
    routing = service.spec.routing
    return RouteTable(
        service=service.key,
        uid=service.uid,
        version=0,
        endpoints=endpoints,
        revisions=[Revision(name=each.revision, weight=each.weight) for each in traffic],
        policy=Policy(kind=routing.policy),
        hold_seconds=routing.hold_seconds,
        endpoint_limit=routing.concurrency,
    )


def _host(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip
