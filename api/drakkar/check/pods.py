"""The pods that measure nodes: one per node, restricted, bound to its node. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drakkar.check.results import NodeResult
from drakkar.constants import GROUP, MANAGED_BY, RUN_AS_USER

PORT = 8700
"""Where rank 0 keeps the store that the ranks meet at."""
LABEL = f"{GROUP}/check"

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Worker:
    """How pods of the worker image start on this cluster."""

    image: str
    python: str = "python"
    runtime_class: str = ""
    pull_policy: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """One check."""

    name: str
    namespace: str
    nodes: tuple[str, ...]
    worker: Worker
    resources: Mapping[str, Mapping[str, int]]
    """Node -> the accelerators that its pod asks for."""
    rounds: int = 3
    meet_seconds: float = 120.0
    in_turn: bool = False


def pod(plan: Plan, rank: int, master: str) -> Object:
    """The pod of a rank. ``master`` is the address of rank 0's pod, anything for rank 0 itself.

    It is bound to its node as it is made, and tolerates all taints: a node is checked to be released.
    """
    environment = {
        "DRAKKAR_CHECK_NODES": ",".join(plan.nodes),
        "DRAKKAR_CHECK_RANK": str(rank),
        "DRAKKAR_CHECK_MASTER": master,
        "DRAKKAR_CHECK_ROUNDS": str(plan.rounds),
        "DRAKKAR_CHECK_MEET_SECONDS": str(plan.meet_seconds),
        "DRAKKAR_CHECK_IN_TURN": "1" if plan.in_turn else "0",
        "HOME": "/tmp",
    }
    devices = {name: str(count) for name, count in plan.resources.get(plan.nodes[rank], {}).items()}
    container: Object = {
        "name": "check",
        "image": plan.worker.image,
        "command": [plan.worker.python, "-m", "drakkar_workers.check"],
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": devices},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    if plan.worker.pull_policy:
        container["imagePullPolicy"] = plan.worker.pull_policy
    spec: Object = {
        "nodeName": plan.nodes[rank],
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 1,
        "tolerations": [{"operator": "Exists"}],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": RUN_AS_USER,
            "runAsGroup": RUN_AS_USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
    }
    if plan.worker.runtime_class:
        spec["runtimeClassName"] = plan.worker.runtime_class
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name(plan, rank),
            "namespace": plan.namespace,
            "labels": {**MANAGED_BY, LABEL: plan.name},
        },
        "spec": spec,
    }


def pod_name(plan: Plan, rank: int) -> str:
    """Name of a rank's pod."""
    return f"{plan.name}-{rank}"


def result(node: str, found: Mapping[str, Any] | None) -> NodeResult | None:
    """What a pod says of its node; None while it is at it."""
    if found is None:
        return NodeResult(node=node, accelerator="", error="its pod is gone")
    status: Mapping[str, Any] = found.get("status") or {}
    if status.get("phase") not in ("Succeeded", "Failed"):
        return None
    for container in status.get("containerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated") or {}
        try:
            return NodeResult.model_validate(json.loads(ended.get("message") or ""))
        except ValueError:
            said = f"exit code {ended.get('exitCode')}: {(ended.get('message') or '')[-300:]}"
            return NodeResult(node=node, accelerator="", error=said.rstrip(": "))
    why = status.get("message") or status.get("reason") or "its pod failed"
    return NodeResult(node=node, accelerator="", error=str(why)[:500])


def free_devices(
    offered: Mapping[str, Any], resource: str, pods: Sequence[Mapping[str, Any]]
) -> int:
    """Devices of a node that no pod holds. ``offered`` is its status.allocatable."""
    held = sum(
        int((container.get("resources") or {}).get("limits", {}).get(resource, 0))
        for found in pods
        if (found.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
        for container in found["spec"].get("containers") or ()
    )
    return max(0, int(offered.get(resource, 0)) - held)
