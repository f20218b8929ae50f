"""What a pod asks of its node, counted as kube-scheduler does."""

from collections.abc import Mapping
from typing import Any

from drakkar.quantity import amount
from drakkar_operator.model import Amounts


def pod_requests(spec: Mapping[str, Any]) -> dict[str, int]:
    """Requests of a pod spec: the containers and sidecars together, or the neediest start-up step.

    Init containers run one after another, each beside the sidecars (restartPolicy Always) that
    started before it, so the pod needs the largest of those moments or the sum of what runs at the
    end, plus the runtime's overhead (KEP-753, ``resourcehelper.PodRequests``). A limit without a
    request counts as the request. Raises ValueError for a malformed quantity.
    """
    running: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        own = container_requests(container)
        if container.get("restartPolicy") == "Always":
            running = _add(running, own)
            peak = _max(peak, running)
        else:
            peak = _max(peak, _add(running, own))
    for container in spec.get("containers") or ():
        running = _add(running, container_requests(container))
    total = _max(peak, running)
    for resource, quantity in ((spec.get("resources") or {}).get("requests") or {}).items():
        total[resource] = amount(resource, quantity)
    overhead = {name: amount(name, value) for name, value in (spec.get("overhead") or {}).items()}
    return _add(total, overhead)


def container_requests(container: Mapping[str, Any]) -> dict[str, int]:
    """Requests of one container, limits standing in for requests that are not given."""
    resources = container.get("resources") or {}
    merged = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: amount(name, quantity) for name, quantity in merged.items()}


def _add(left: Amounts, right: Amounts) -> dict[str, int]:
    return {name: left.get(name, 0) + right.get(name, 0) for name in {**left, **right}}


def _max(left: Amounts, right: Amounts) -> dict[str, int]:
    return {name: max(left.get(name, 0), right.get(name, 0)) for name in {**left, **right}}
