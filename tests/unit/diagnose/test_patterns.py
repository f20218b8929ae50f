"""Each pattern is found where it is, with its evidence, and not where it isn't."""

from typing import Any

import pytest

from drakkar.diagnose import Facts, Finding, diagnose
from drakkar.diagnose.patterns import LINES, PATTERNS

ADMITTED = {"type": "Admitted", "status": "True", "reason": "Placed", "message": "placed in r0"}


def job(*conditions: dict[str, Any], **status: Any) -> dict[str, Any]:
    return {"kind": "TrainingJob", "status": {"conditions": [ADMITTED, *conditions], **status}}


def pod(**container: Any) -> dict[str, Any]:
    status = {"containerStatuses": [{"name": "trainer", "image": "x:1", **container}]}
    return {"metadata": {"name": "gpt-0"}, "spec": {}, "status": status}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return pod(state={"waiting": {"reason": reason, "message": message}}, ready=False)


def restart(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    return {"id": reason, "scope": "pod", "reason": reason, "message": message, **more}


def event(reason: str, message: str) -> dict[str, Any]:
    about = {"kind": "Pod", "name": "gpt-0"}
    return {"reason": reason, "message": message, "involvedObject": about}


def refused(reason: str, message: str) -> dict[str, Any]:
    return {"type": "Admitted", "status": "False", "reason": reason, "message": message}


def log(*lines: str) -> Facts:
    return Facts(job(), logs={"gpt-0": lines})


CASES: dict[str, tuple[Facts, str, str]] = {
    "unseen": (Facts({"kind": "TrainingJob"}), "operator has not seen it", "no conditions"),
    "bad spec": (
        Facts({"status": {"conditions": [refused("InvalidSpec", "spec.replicas: too few")]}}),
        "spec can't be used",
        "spec.replicas: too few",
    ),
    "no queue": (
        Facts({"status": {"conditions": [refused("QueueNotFound", "queue 'q' does not exist")]}}),
        "spec can't be used",
        "queue 'q' does not exist",
    ),
    "quota": (
        Facts(job(), events=[event("PodCreationFailed", "pods 'a' forbidden: exceeded quota: q")]),
        "ResourceQuota",
        "exceeded quota: q",
    ),
    "pod security": (
        Facts(job(), events=[event("PodCreationFailed", 'violates PodSecurity "restricted"')]),
        "Pod Security",
        "restricted",
    ),
    "pending": (
        Facts(
            {
                "status": {
                    "conditions": [refused("WaitingForRoom", "needs 4")],
                    "pendingReason": "needs 4 replicas with 8 nvidia.com/gpu each",
                }
            }
        ),
        "waits for a place",
        "needs 4 replicas",
    ),
    "image": (
        Facts(job(), [waiting("ImagePullBackOff", 'Back-off pulling image "x:1"')]),
        "image can't be pulled",
        'gpt-0: ImagePullBackOff: Back-off pulling image "x:1"',
    ),
    "missing secret": (
        Facts(job(), [waiting("CreateContainerConfigError", 'secret "s" not found')]),
        "can't be made",
        'secret "s" not found',
    ),
    "killed for memory": (
        Facts(job(), [pod(lastState={"terminated": {"reason": "OOMKilled"}})]),
        "memory that its containers may use",
        "container trainer was OOMKilled",
    ),
    "killed for memory, told": (
        Facts(job(restarts=[restart("OOMKilled", "rank 1", evidence=["memory.events oom_kill 1"])])),
        "memory that its containers may use",
        "oom_kill 1",
    ),
    "device memory": (
        log("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"),
        "accelerator ran out of memory",
        "Tried to allocate",
    ),
    "device fault": (
        Facts(job(restarts=[restart("DeviceFault", "xid-79 on GPU-1", node="n1")])),
        "accelerator failed",
        "DeviceFault on n1: xid-79 on GPU-1",
    ),
    "device fault, logged": (
        log("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus."),
        "accelerator failed",
        "Xid",
    ),
    "repeated exception": (
        Facts(job(restarts=[restart("KeyError", f"'x' at step {n}") for n in (5, 5, 6)])),
        "same exception ended it 3 times",
        "KeyError: 'x' at step",
    ),
    "failed": (
        Facts(job({"type": "Failed", "status": "True", "reason": "DeadlineExceeded",
                   "message": "ran 60 s"})),
        "has failed",
        "DeadlineExceeded: ran 60 s",
    ),
    "crash loop": (
        Facts(
            job(),
            [waiting("CrashLoopBackOff")],
            logs={"gpt-0": ["loading", "ValueError: no such model"]},
        ),
        "again and again",
        "ValueError: no such model",
    ),
    "nan, logged": (log("step 120 loss nan lr 0.001"), "diverged", "loss nan"),
    "nan, other style": (log("{'loss': nan, 'step': 3}"), "diverged", "nan"),
    "nan, told": (Facts(job(progress={"loss": float("nan")})), "diverged", "progress.loss"),
    "hang": (
        Facts(job(restarts=[restart("ProcessHung", "rank 3 hung in backward", node="n2")])),
        "rank hung",
        "rank 3 hung in backward",
    ),
    "straggler": (Facts(job(stragglers=["rank 2 on n1: 1.4 x"])), "slow one", "rank 2 on n1"),
    "node lost": (Facts(job(restarts=[restart("NodeLost", "n1 is gone", node="n1")])),
                  "lost a node", "n1 is gone"),
    "preempted": (Facts(job(restarts=[restart("Preempted", "for ml/big")])),
                  "higher priority", "for ml/big"),
    "evicted": (Facts(job(restarts=[restart("PodEvicted", "low on memory")])),
                "kubelet evicted", "low on memory"),
    "unready": (
        Facts(job(), [pod(ready=False, state={"running": {}})],
              [event("Unhealthy", "Readiness probe failed: HTTP 503")]),
        "not ready",
        "gpt-0: Readiness probe failed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_is_found_alone_with_its_evidence_and_advice(name: str) -> None:
    facts, cause, evidence = CASES[name]
    found = diagnose(facts)
    assert [each.cause for each in found if cause in each.cause], found
    (finding,) = found
    assert any(evidence in line for line in finding.evidence), finding
    assert finding.advice.endswith((".", "get.")) and len(finding.evidence) <= LINES


def test_every_pattern_has_a_case() -> None:
    met = {
        pattern.__name__
        for pattern in PATTERNS
        for facts, *_ in CASES.values()
        if list(pattern(facts))
    }
    assert met == {pattern.__name__ for pattern in PATTERNS}


@pytest.mark.parametrize(
    "facts",
    [
        Facts(job()),
        Facts(job(restarts=[restart("PodDeleted")])),
        Facts(job(progress={"loss": 2.5}), [pod(ready=True, state={"running": {}})]),
        Facts(job(), [pod(ready=True)], [event("Unhealthy", "it was while it started")]),
        log("loss 2.31", "banana loss", "finance: nan values dropped", "Exit 0"),
        Facts(job(restarts=[restart("KeyError", "'a'"), restart("ValueError", "b")])),
        Facts(job({"type": "Failed", "status": "False", "reason": "x", "message": "y"})),
    ],
)
def test_nothing_is_found_where_nothing_is_wrong(facts: Facts) -> None:
    assert diagnose(facts) == []


def test_equal_evidence_is_shown_once() -> None:
    lines = [f"step {n} loss nan" for n in range(100)]
    (finding,) = diagnose(log(*lines))
    assert finding.evidence == ("gpt-0: step 0 loss nan",)


def test_a_node_where_ranks_hang_often_is_named() -> None:
    hung = [restart("ProcessHung", f"rank {n}", node="n2") for n in (1, 5)]
    (finding,) = diagnose(Facts(job(restarts=hung)))
    assert "2 times on n2" in finding.advice


def test_several_causes_are_all_told() -> None:
    facts = Facts(
        job(restarts=[restart("NodeLost", node="n1"), restart("OOMKilled")]),
        [waiting("ErrImagePull", "not found")],
    )
    causes = [finding.cause for finding in diagnose(facts)]
    assert len(causes) == 3 and causes[0] == "An image can't be pulled."
    assert isinstance(diagnose(facts)[0], Finding)
