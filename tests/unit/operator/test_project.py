"""Projections of Kubernetes objects."""

from typing import Any

import pytest

from drakkar.devices import DeviceFault, NodeFaults, show_faults
from drakkar_operator.cluster.jobs import project_job
from drakkar_operator.cluster.project import node, pod, pod_requests, priority, queue

GIB = 2**30


def container(name: str = "c", cpu: str = "1", **more: Any) -> dict[str, Any]:
    return {"name": name, "resources": {"requests": {"cpu": cpu}}, **more}


@pytest.mark.parametrize(
    ("raw", "millicores"),
    [
        ({"spec": {"containers": [container(), container("d", "500m")]}}, 1500),
        ({"spec": {"containers": [container()], "initContainers": [container("i", "3")]}}, 3000),
        (
            {
                "spec": {
                    "containers": [container()],
                    "initContainers": [container("s", "2", restartPolicy="Always")],
                }
            },
            3000,
        ),
        (
            {
                "spec": {
                    "containers": [container()],
                    "initContainers": [
                        container("s", "2", restartPolicy="Always"),
                        container("i", "5"),
                    ],
                }
            },
            7000,
        ),
        ({"spec": {"containers": [container()], "overhead": {"cpu": "250m"}}}, 1250),
        (
            {
                "spec": {"containers": [container()]},
                "status": {
                    "containerStatuses": [{"name": "c", "allocatedResources": {"cpu": "2"}}]
                },
            },
            2000,
        ),
        (
            {
                "spec": {"containers": [container("c", "4")]},
                "status": {
                    "containerStatuses": [
                        {"name": "c", "resources": {"requests": {"cpu": "1"}}},
                    ]
                },
            },
            4000,
        ),
        ({"spec": {"containers": [{"name": "c"}]}}, 0),
    ],
    ids=[
        "containers add up",
        "the largest start-up step",
        "a sidecar stays",
        "a step beside a sidecar",
        "overhead",
        "being made smaller",
        "being made larger",
        "asks for nothing",
    ],
)
def test_requests_are_counted_as_kube_scheduler_does(raw: dict[str, Any], millicores: int):
    assert pod_requests(raw).get("cpu", 0) == millicores


def test_a_pod_of_a_gang():
    view = pod(
        {
            "metadata": {
                "namespace": "ns",
                "name": "a-3",
                "uid": "u",
                "labels": {
                    "drakkar.dev/job": "a",
                    "drakkar.dev/job-uid": "j",
                    "drakkar.dev/replica": "3",
                },
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "deletionTimestamp": "2026-01-01T00:00:30Z",
            },
            "spec": {"nodeName": "n1", "containers": [container("side"), container("trainer")]},
            "status": {
                "phase": "Failed",
                "podIP": "10.0.0.1",
                "containerStatuses": [
                    {"name": "side", "state": {"running": {}}},
                    {
                        "name": "trainer",
                        "state": {"terminated": {"exitCode": 75, "message": "bye"}},
                    },
                ],
            },
        }
    )
    assert (view.job, view.job_uid, view.replica, view.node) == ("a", "j", 3, "n1")
    assert (view.exit_code, view.termination_message, view.running) == (75, "bye", False)
    assert view.deleting
    assert view.deletion_time == view.created + 30
    assert view.finished


@pytest.mark.parametrize("label", ["x", "-1", "", "99999999999999", "1.5"])
def test_a_forged_replica_label_is_no_replica(label: str):
    meta = {"namespace": "n", "name": "p", "uid": "u", "labels": {"drakkar.dev/replica": label}}
    assert pod({"metadata": meta}).replica is None


@pytest.mark.parametrize(
    ("main", "init", "reason"),
    [
        ("ImagePullBackOff", None, "ImagePullBackOff"),
        ("PodInitializing", "CrashLoopBackOff", "CrashLoopBackOff"),
        ("ContainerCreating", None, "ContainerCreating"),
        ("PodInitializing", "PodInitializing", "PodInitializing"),
    ],
)
def test_why_a_container_waits(main: str, init: str | None, reason: str):
    status: dict[str, Any] = {
        "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": main}}}]
    }
    if init:
        status["initContainerStatuses"] = [{"name": "i", "state": {"waiting": {"reason": init}}}]
    raw = {
        "metadata": {"namespace": "n", "name": "p", "uid": "u"},
        "spec": {"containers": [{"name": "c"}]},
        "status": status,
    }
    assert pod(raw).waiting_reason == reason


def test_a_node():
    view = node(
        {
            "metadata": {"name": "n", "labels": {"a": "b"}},
            "spec": {"unschedulable": True, "taints": [{"key": "k", "effect": "NoSchedule"}]},
            "status": {
                "allocatable": {"cpu": "1500m", "memory": "2Gi", "nvidia.com/gpu": "8"},
                "conditions": [{"type": "Ready", "status": "Unknown"}],
            },
        }
    )
    assert dict(view.allocatable) == {"cpu": 1500, "memory": 2 * GIB, "nvidia.com/gpu": 8}
    assert (view.ready, view.unschedulable) == (False, True)
    assert (view.taints[0].key, view.taints[0].value) == ("k", "")


def test_a_queue_and_a_priority_class():
    raw = {"metadata": {"name": "q"}, "spec": {"quota": {"cpu": "2"}, "binding": "pinned"}}
    view = queue(raw)
    assert (dict(view.quota), view.pinned, view.weight) == ({"cpu": 2000}, True, 1)
    assert priority({"value": 7, "globalDefault": True}) == (7, True, True)
    assert not priority({"value": 7, "preemptionPolicy": "Never"}).preempts


def job(spec: Any) -> dict[str, Any]:
    meta = {"namespace": "n", "name": "j", "uid": "u", "resourceVersion": "5", "generation": 2}
    return {"metadata": {**meta, "managedFields": [{}]}, "spec": spec}


def test_a_job():
    view = project_job(job({"replicas": 3}))
    assert (view.spec.replicas, view.generation, view.problem) == (3, 2, None)
    assert "managedFields" not in view.raw["metadata"]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"replicas": "many"}, "spec.replicas"),
        ({"checkpoint": {"everySteps": -1}}, "spec.checkpoint.everySteps"),
        ({"topology": []}, "spec.topology"),
        ("text", "spec"),
    ],
)
def test_a_spec_that_makes_no_sense_is_a_problem_not_a_crash(spec: Any, field: str):
    view = project_job(job(spec))
    assert view.problem is not None
    assert field in view.problem


def test_devices_that_the_kubelet_calls_unhealthy() -> None:
    devices = [
        {"resourceID": "GPU-1", "health": "Healthy"},
        {"resourceID": "GPU-2", "health": "Unhealthy"},
        {"resourceID": "GPU-3::1", "health": "Unhealthy"},
        {"resourceID": "GPU-4", "health": "Unknown"},
    ]
    status = {"name": "c", "allocatedResourcesStatus": [{"name": "x/gpu", "resources": devices}]}
    raw = {
        "metadata": {"namespace": "ml", "name": "p", "uid": "u"},
        "spec": {"containers": [container()]},
        "status": {"containerStatuses": [status]},
    }
    assert pod(raw).broken_devices == ("GPU-2", "GPU-3")


@pytest.mark.parametrize(("allocatable", "expected"), [(8, 6), (6, 6), (3, 3)])
def test_broken_devices_are_no_room_at_once(allocatable: int, expected: int) -> None:
    fault = DeviceFault(code="xid-79", message="m", severity="fatal")
    faults = show_faults((NodeFaults(resource="x/gpu", devices={"a": fault, "b": fault}),))
    raw = {
        "metadata": {"name": "n", "annotations": {"drakkar.dev/device-faults": faults}},
        "status": {"allocatable": {"x/gpu": str(allocatable)}, "capacity": {"x/gpu": "8"}},
    }
    view = node(raw)
    assert view.allocatable["x/gpu"] == expected
    assert view.faults["a"].code == "xid-79"


def test_an_annotation_that_cannot_be_read_is_passed_over() -> None:
    raw = {"metadata": {"name": "n", "annotations": {"drakkar.dev/device-faults": "{"}}}
    assert node(raw).faults == {}


def test_a_pod_that_kube_scheduler_refuses() -> None:
    raw = {
        "metadata": {"namespace": "n", "name": "p", "uid": "u"},
        "spec": {"containers": [container()]},
        "status": {
            "phase": "Pending",
            "conditions": [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/1 nodes are available",
                }
            ],
        },
    }
    view = pod(raw)
    assert (view.waiting_reason, view.message) == ("Unschedulable", "0/1 nodes are available")
    raw["status"]["conditions"][0] |= {"status": "True", "reason": "Scheduled"}
    assert pod(raw).waiting_reason == ""
