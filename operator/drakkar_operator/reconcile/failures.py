"""Why a pod is lost, read from what Kubernetes and the agent left behind."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from drakkar.exitcodes import ExitCode
from drakkar.protocol import Report
from drakkar_operator.model import NodeView, PodView

_EVICTIONS = frozenset(
    {"Evicted", "Preempting", "Shutdown", "NodeShutdown", "Terminated", "NodeLost", "NodeAffinity"}
)
_REFUSALS = ("OutOf", "NodePorts", "UnexpectedAdmissionError", "NodeAffinity", "TopologyAffinity")
MESSAGE_LIMIT = 1024
LINE_LIMIT = 512
"""Characters of one piece of evidence."""


@dataclass(frozen=True, slots=True)
class Loss:
    """The end of a pod before its time."""

    reason: str
    message: str
    counted: bool
    final: bool = False
    """Trying again won't help."""
    evidence: tuple[str, ...] = ()
    """What shows it, as Kubernetes, the node or the agent tells it."""


def failed_pod(pod: PodView) -> Loss:
    """Why a pod in phase Failed ended.

    Refusals by the kubelet, evictions and orderly departures are the cluster's doing and are not
    counted against the job; anything else is.
    """
    seen = _ended(pod)
    if pod.exit_code is None and pod.reason.startswith(_REFUSALS):
        return Loss("Refused", _sentence(pod, pod.message or pod.reason), False, evidence=seen)
    if pod.exit_code == ExitCode.CHECKPOINTED:
        said = "asked to leave, state saved"
        return Loss("PodTerminated", _sentence(pod, said), False, evidence=seen)
    if pod.reason in _EVICTIONS:
        return Loss("PodEvicted", _sentence(pod, pod.message or pod.reason), False, evidence=seen)
    reason, message = _told(pod)
    if pod.exit_code == ExitCode.CONFIG:
        said = message or "bad configuration"
        return Loss(reason or "ConfigError", said, True, final=True, evidence=seen)
    said = message or _exit(pod)
    return Loss(reason or "PodFailed", _sentence(pod, said), True, evidence=seen)


def on_lost_node(pod: PodView, nodes: Mapping[str, NodeView]) -> Loss | None:
    """The loss of a pod whose node is gone or not ready, or None if its node is well."""
    if pod.node is None:
        return None
    node = nodes.get(pod.node)
    if node is None:
        seen = (f"there is no Node {pod.node} in the cluster",)
        return Loss("NodeLost", _sentence(pod, "the node is gone"), False, evidence=seen)
    if not node.ready:
        taints = ", ".join(f"{taint.key}:{taint.effect}" for taint in node.taints) or "none"
        seen = (f"condition Ready of Node {node.name} is not True; taints: {taints}"[:LINE_LIMIT],)
        return Loss("NodeLost", _sentence(pod, "the node is not ready"), False, evidence=seen)
    return None


def on_broken_device(pod: PodView, nodes: Mapping[str, NodeView]) -> Loss | None:
    """The loss of a pod that holds a device which won't come back, or can't start on one.

    Its kubelet calls the device unhealthy and the node says why. One of them is not enough: a
    kubelet calls all devices unhealthy while their plugin is away.
    """
    node = nodes.get(pod.node or "")
    for device in pod.broken_devices if node is not None else ():
        assert node is not None
        fault = node.faults.get(device)
        stuck = not pod.running and pod.waiting_reason != ""
        if fault is not None and (fault.severity == "fatal" or stuck):
            said = f"device {device}: {fault.code}: {fault.message}"
            seen = (
                f"Node {node.name}: {fault.severity} fault {fault.code} of {device}"[:LINE_LIMIT],
                f"kubelet: unhealthy in {pod.name}: {', '.join(pod.broken_devices)}"[:LINE_LIMIT],
            )
            return Loss("DeviceFault", _sentence(pod, said), False, evidence=seen)
    return None


def deleted_pod(pod: PodView) -> Loss:
    """The loss of a pod that somebody else deletes."""
    seen = ("the pod has a deletionTimestamp that the operator did not ask for",)
    return Loss("PodDeleted", _sentence(pod, "the pod was deleted"), False, evidence=seen)


def final_report(pod: PodView) -> Report | None:
    """The report that a coordinator left as its termination message, if it is whole."""
    try:
        return Report.model_validate_json(pod.termination_message)
    except ValueError:
        return None


def _told(pod: PodView) -> tuple[str, str]:
    """Reason and message that the agent left, or the message as it stands."""
    text = pod.termination_message.strip()
    try:
        told = json.loads(text)
        return str(told["reason"])[:64], str(told["message"])
    except (ValueError, KeyError, TypeError):
        return "", text[-MESSAGE_LIMIT // 2 :]


def _ended(pod: PodView) -> tuple[str, ...]:
    """What the kubelet says of a pod's end."""
    parts = [f"phase {pod.phase}"]
    if pod.reason:
        parts.append(f"reason {pod.reason}")
    if pod.exit_code is not None:
        parts.append(f"exit code {pod.exit_code}")
    return (f"{pod.name}: {', '.join(parts)}"[:LINE_LIMIT],)


def _exit(pod: PodView) -> str:
    if pod.exit_code is None:
        return pod.message or pod.reason or "no reason given"
    name = " (killed, perhaps out of memory)" if pod.exit_code == 137 else ""
    return f"exit code {pod.exit_code}{name}"


def _sentence(pod: PodView, said: str) -> str:
    where = f" on {pod.node}" if pod.node else ""
    return f"{pod.name}{where}: {said}"[:MESSAGE_LIMIT]
