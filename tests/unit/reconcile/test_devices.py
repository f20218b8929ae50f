"""A pod whose accelerator breaks for good is replaced, with the device and its error as the cause."""

from dataclasses import replace

import pytest

from drakkar.devices import DeviceFault
from drakkar_operator.model import JobView, NodeView, PodView
from drakkar_operator.reconcile.actions import Plan
from drakkar_operator.reconcile.trainingjob import plan
from support.jobs import NODES, NOW, admitted, after, created, deleted, gang, job, pod, report

FATAL = DeviceFault(code="xid-79", message="GPU has fallen off the bus", severity="fatal")
PASSING = DeviceFault(code="thermal", message="95 C", severity="unhealthy")


def look(view: JobView, pods: list[PodView], nodes: dict[str, NodeView]) -> Plan:
    return plan(view, pods, nodes, report(), NOW)


def broken(fault: DeviceFault | None, device: str = "GPU-7") -> dict[str, NodeView]:
    faults = {device: fault} if fault else {}
    return {**NODES, "b": replace(NODES["b"], faults=faults)}


def test_the_cause_names_node_device_and_error() -> None:
    pods = gang()
    pods[1] = pod(1, broken_devices=("GPU-7",))
    made = look(job(admitted()), pods, broken(FATAL))
    (restart,) = made.status.restarts
    assert restart.reason == "DeviceFault"
    assert restart.message == "gpt-1 on b: device GPU-7: xid-79: GPU has fallen off the bus"
    assert (restart.replica, restart.node, restart.counted) == (1, "b", False)
    assert restart.evidence == [
        "Node b: fatal fault xid-79 of GPU-7",
        "kubelet: unhealthy in gpt-1: GPU-7",
    ]
    assert deleted(made) == {"gpt-1": False}, "gracefully: the others' state is saved"


def test_it_is_recorded_once() -> None:
    view = job(admitted())
    pods = gang()
    pods[1] = pod(1, broken_devices=("GPU-7",))
    view = after(view, look(view, pods, broken(FATAL)))
    pods[1] = replace(pods[1], deleting=True, deletion_time=NOW + 30)
    assert [r.reason for r in look(view, pods, broken(FATAL)).status.restarts] == ["DeviceFault"]


@pytest.mark.parametrize(
    ("pod_says", "fault", "why"),
    [
        ((), FATAL, "the pod holds another device of the node"),
        (("GPU-7",), None, "the kubelet lost its plugin, nothing is broken"),
        (("GPU-7",), PASSING, "it works on; no new pod gets the device"),
        (("GPU-1",), FATAL, "what is called unhealthy is not what is broken"),
    ],
)
def test_a_pod_is_left_alone(pod_says: tuple[str, ...], fault: DeviceFault, why: str) -> None:
    pods = gang()
    pods[1] = pod(1, broken_devices=pod_says)
    made = look(job(admitted()), pods, broken(fault))
    assert (made.status.restarts, deleted(made)) == ([], {}), why


def test_a_pod_that_cannot_start_on_its_device_is_replaced() -> None:
    pods = gang()
    pods[1] = pod(
        1,
        phase="Pending",
        running=False,
        waiting_reason="RunContainerError",
        broken_devices=("GPU-7",),
    )
    made = look(job(admitted()), pods, broken(PASSING))
    assert [r.message for r in made.status.restarts] == ["gpt-1 on b: device GPU-7: thermal: 95 C"]


def test_a_pod_that_failed_because_of_its_device_is_not_blamed() -> None:
    pods = gang()
    pods[1] = pod(1, phase="Failed", running=False, exit_code=1, broken_devices=("GPU-7",))
    (restart,) = look(job(admitted()), pods, broken(FATAL)).status.restarts
    assert (restart.reason, restart.counted) == ("DeviceFault", False)


def test_its_rank_does_not_go_back_to_that_node_at_once() -> None:
    view = job(admitted())
    pods = gang()
    pods[1] = pod(1, broken_devices=("GPU-7",))
    view = after(view, look(view, pods, broken(FATAL)))
    made = look(view, [pods[0], pods[2]], broken(FATAL))
    assert created(made) == []
    assert made.request is not None
    assert made.request.missing == (1,)
    assert made.request.avoid == frozenset({"b"})
