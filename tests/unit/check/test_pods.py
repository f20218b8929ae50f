"""The pods of a check and what they leave behind."""

import json
from typing import Any

import pytest

from drakkar.check.pods import Plan, Worker, free_devices, pod, result
from drakkar.check.results import NodeResult, PairResult
from drakkar_workers.check.__main__ import settings

PLAN = Plan(
    name="check-1",
    namespace="ml",
    nodes=("a", "b"),
    worker=Worker("worker:1", "/venv/bin/python", "nvidia", "Always"),
    resources={"b": {"nvidia.com/gpu": 8}},
    in_turn=True,
)


def test_a_pod_is_restricted_and_bound_to_its_node() -> None:
    spec = pod(PLAN, 1, "10.0.0.1")["spec"]
    assert spec["nodeName"] == "b"
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["runtimeClassName"] == "nvidia"
    assert spec["securityContext"]["runAsNonRoot"] is True
    (container,) = spec["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "8"}
    assert container["imagePullPolicy"] == "Always"
    assert pod(PLAN, 0, "")["spec"]["containers"][0]["resources"]["limits"] == {}


def test_the_pod_reads_what_it_is_told() -> None:
    (container,) = pod(PLAN, 1, "10.0.0.1")["spec"]["containers"]
    found = settings({item["name"]: item["value"] for item in container["env"]})
    assert (found.node, found.rank, found.nodes) == ("b", 1, ("a", "b"))
    assert (found.master, found.rounds, found.in_turn) == ("10.0.0.1", 3, True)
    assert found.meet_seconds == PLAN.meet_seconds


def ended(message: str, code: int = 0, **status: Any) -> dict[str, Any]:
    state = {"terminated": {"exitCode": code, "message": message}}
    phase = "Failed" if code else "Succeeded"
    return {"status": {"phase": phase, "containerStatuses": [{"state": state}], **status}}


def test_a_result_travels_as_the_last_words() -> None:
    told = NodeResult(
        node="a",
        accelerator="cuda",
        teraflops=(1.5,) * 16,
        pairs=tuple(PairResult(peer="n" * 60, gbps=400.0) for _ in range(16)),
    )
    text = told.model_dump_json()
    assert len(text) < 4096
    assert result("a", ended(text)) == told


@pytest.mark.parametrize(
    ("found", "error"),
    [
        (None, "its pod is gone"),
        (ended("Traceback: no torch", 1), "exit code 1: Traceback: no torch"),
        (ended("", 137), "exit code 137"),
        (ended(json.dumps([1]), 0), "exit code 0: [1]"),
        (
            {"status": {"phase": "Failed", "message": "Allocate failed: no devices"}},
            "Allocate failed: no devices",
        ),
        ({"status": {"phase": "Failed"}}, "its pod failed"),
    ],
)
def test_what_went_wrong_is_the_error(found: Any, error: str) -> None:
    told = result("a", found)
    assert told is not None
    assert told.error == error


def test_a_pod_that_runs_says_nothing_yet() -> None:
    assert result("a", {"status": {"phase": "Running"}}) is None
    assert result("a", {"metadata": {}}) is None


def test_free_devices() -> None:
    holder = {"spec": {"containers": [{"resources": {"limits": {"x/gpu": "3"}}}, {}]}}
    done = {**holder, "status": {"phase": "Succeeded"}}
    assert free_devices({"x/gpu": "8"}, "x/gpu", [holder, done]) == 5
    assert free_devices({"x/gpu": "2"}, "x/gpu", [holder]) == 0
    assert free_devices({}, "x/gpu", []) == 0
