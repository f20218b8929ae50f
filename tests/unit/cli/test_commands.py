"""Whole commands against a server."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from drakkar.cli import logs

JOBS = "/apis/drakkar.dev/v1alpha1/namespaces/default/trainingjobs"
GROUP = "/apis/drakkar.dev/v1alpha1"
PODS = "/api/v1/namespaces/default/pods"
EVENTS = "/api/v1/namespaces/default/events"
RESOURCES = {"resources": [{"name": "trainingjobs", "kind": "TrainingJob", "namespaced": True}]}


def job(name: str = "gpt", spec: Any = None, **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "drakkar.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": "default", "resourceVersion": "1"},
        "spec": {"replicas": 2, "recipe": {"name": "pretrain"}, **(spec or {})},
        "status": status,
    }


def condition(kind: str, message: str = "") -> dict[str, str]:
    return {
        "type": kind,
        "status": "True",
        "reason": kind,
        "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


def pod(replica: int, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"gpt-{replica}",
            "uid": f"uid-{replica}",
            "labels": {"drakkar.dev/job": "gpt", "drakkar.dev/replica": str(replica)},
        },
        "spec": {"nodeName": f"node-{replica}", "containers": [{"name": "trainer"}]},
        "status": {"phase": "Running", **status},
    }


def listed(*items: Any) -> dict[str, Any]:
    return {"kind": "List", "metadata": {"resourceVersion": "5"}, "items": list(items)}


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in job().items() if key != "status"}))
    return str(path)


def test_run_applies(api: Any, drakkar: Any, manifest: str) -> None:
    api.on("GET", GROUP, RESOURCES)
    api.on("PATCH", f"{JOBS}/gpt", job())
    result = drakkar("run", manifest)
    assert result.exit_code == 0, result.output
    assert "TrainingJob default/gpt applied" in result.stdout


def test_run_refuses_mistakes_before_it_asks_the_cluster(
    api: Any, drakkar: Any, tmp_path: Path
) -> None:
    path = tmp_path / "bad.yaml"
    config = {"name": "pretrain", "config": {"steps": 0, "lr": 1}}
    path.write_text(yaml.safe_dump({**job(spec={"recipe": config}), "status": None}))
    result = drakkar("run", str(path))
    assert result.exit_code == 1
    assert "spec.recipe.config.steps" in result.stderr
    assert "spec.recipe.config.lr: no such setting" in result.stderr
    assert api.requests == []


@pytest.mark.parametrize(
    ("end", "code"),
    [(condition("Complete"), 0), (condition("Failed", "restarted too often"), 1)],
    ids=["complete", "failed"],
)
def test_run_watch_ends_with_the_job(
    api: Any, drakkar: Any, manifest: str, end: Any, code: int
) -> None:
    api.on("GET", GROUP, RESOURCES)
    api.on("PATCH", f"{JOBS}/gpt", job())
    progress = {"step": 5, "totalSteps": 10, "loss": 3.5}
    running = job(phase="Running", progress=progress)
    ended = job(phase=end["type"], conditions=[end], progress={**progress, "step": 10})
    api.on("GET", JOBS, listed(job(phase="Pending", pendingReason="needs 2 nodes, has 1")))
    api.on(
        "WATCH",
        JOBS,
        [{"type": "MODIFIED", "object": item} for item in (running, ended)],
    )
    result = drakkar("run", manifest, "--watch")
    assert result.exit_code == code, result.output
    assert "Pending: needs 2 nodes, has 1" in result.stdout
    assert "step 10/10, loss 3.5" in result.stdout
    if code:
        assert "restarted too often" in result.stderr


def test_run_watch_of_a_deleted_job_fails(api: Any, drakkar: Any, manifest: str) -> None:
    api.on("GET", GROUP, RESOURCES)
    api.on("PATCH", f"{JOBS}/gpt", job())
    api.on("GET", JOBS, listed(job(phase="Running")))
    api.on("WATCH", JOBS, [{"type": "DELETED", "object": job()}])
    result = drakkar("run", manifest, "--watch")
    assert result.exit_code == 1
    assert "was deleted" in result.stderr


def test_get_table(api: Any, drakkar: Any) -> None:
    api.on("GET", JOBS, listed(job("b", phase="Running"), job("a", phase="Pending")))
    lines = drakkar("get").stdout.splitlines()
    assert lines[0].split()[:2] == ["NAME", "PHASE"]
    assert [line.split()[:2] for line in lines[1:]] == [["a", "Pending"], ["b", "Running"]]


@pytest.mark.parametrize("word", ["tj", "trainingjob", "TrainingJobs", "trainingjobs.drakkar.dev"])
def test_get_knows_the_kinds_names(api: Any, drakkar: Any, word: str) -> None:
    api.on("GET", f"{JOBS}/gpt", job())
    result = drakkar("get", word, "gpt", "-o", "json")
    assert json.loads(result.stdout)["metadata"]["name"] == "gpt"


def test_get_of_another_kind_names_those_there_are(drakkar: Any) -> None:
    result = drakkar("get", "pods")
    assert result.exit_code == 1
    assert (
        "trainingjobs (tj), inferenceservices (isvc), queues (dq), topologies (topo)"
        in result.stderr
    )


def test_get_of_nothing(api: Any, drakkar: Any) -> None:
    api.on("GET", JOBS, listed())
    assert "no trainingjobs in namespace default" in drakkar("get").stdout


def test_describe_puts_the_reason_first(api: Any, drakkar: Any) -> None:
    reason = "needs 2 nodes with 8 free GPUs in one rack; the best rack has 1"
    api.on("GET", f"{JOBS}/gpt", job(phase="Pending", pendingReason=reason))
    api.on("GET", PODS, listed())
    api.on("GET", EVENTS, listed())
    lines = drakkar("describe", "gpt").stdout.splitlines()
    assert lines[0] == "default/gpt  Pending"
    assert lines[1] == reason


def test_describe_of_a_service_puts_the_reason_first(api: Any, drakkar: Any) -> None:
    at = "2026-01-01T00:00:00Z"
    stalled = condition("Stalled", "revision b was taken back: 5 of 9 requests failed")
    service = {
        "apiVersion": "drakkar.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": "chat", "namespace": "default", "resourceVersion": "1"},
        "spec": {"model": {"pvc": {"claimName": "models"}}, "scaling": {"max": 4}},
        "status": {
            "conditions": [condition("Ready", "1 of 1 replicas are ready"), stalled],
            "url": "http://chat.default.svc/v1",
            "desiredReplicas": 1,
            "readyReplicas": 1,
            "traffic": [{"revision": "a", "weight": 100, "replicas": 1, "readyReplicas": 1}],
            "members": [
                {
                    "name": "0",
                    "revision": "a",
                    "state": "Ready",
                    "since": at,
                    "asked": at,
                    "placement": {"level": "host", "domain": "n1", "nodes": ["n1"]},
                }
            ],
        },
    }
    api.refuse("GET", f"{JOBS}/chat", 404, reason="NotFound", details={"name": "chat"})
    api.on("GET", f"{GROUP}/namespaces/default/inferenceservices/chat", service)
    api.on("GET", PODS, listed())
    api.on("GET", EVENTS, listed())
    result = drakkar("describe", "chat")
    lines = result.stdout.splitlines()
    assert lines, result.stderr
    assert lines[0] == "default/chat  Ready"
    assert lines[1] == "revision b was taken back: 5 of 9 requests failed"
    text = "\n".join(lines)
    assert "http://chat.default.svc/v1" in text
    assert "1 to 4 by concurrency" in text
    assert "n1" in text


def test_describe_shows_ranks_restarts_and_events(api: Any, drakkar: Any) -> None:
    restart = {
        "id": "1",
        "time": "2026-01-01T00:00:00Z",
        "scope": "process",
        "reason": "ProcessCrashed",
        "replica": 1,
        "evidence": ["rank 4: signal 9"],
    }
    placement = {"level": "rack", "domain": "r1", "nodes": ["node-0", "node-1", "node-9"]}
    api.on(
        "GET",
        f"{JOBS}/gpt",
        job(
            spec={"processesPerReplica": 4, "replicas": 3},
            phase="Recovering",
            placement=placement,
            restarts=[restart],
            restartCount=1,
        ),
    )
    waiting = [{"name": "trainer", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]
    api.on("GET", PODS, listed(pod(0), pod(1, containerStatuses=waiting)))
    event = {
        "metadata": {},
        "type": "Warning",
        "reason": "FailedMount",
        "message": "no volume",
        "count": 3,
        "involvedObject": {"kind": "Pod", "name": "gpt-1"},
    }
    other = {**event, "involvedObject": {"kind": "Pod", "name": "stranger"}}
    api.on("GET", EVENTS, listed())
    api.on("GET", EVENTS, listed(event, other))
    text = drakkar("describe", "gpt").stdout
    rows = [line.split() for line in text.splitlines()]
    assert ["0", "0-3", "node-0", "gpt-0", "Running"] in rows
    assert ["1", "4-7", "node-1", "gpt-1", "ImagePullBackOff"] in rows
    assert ["2", "8-11", "node-9", "no", "pod"] in rows
    assert "process of replica 1: ProcessCrashed" in text
    assert ["rank", "4:", "signal", "9"] in rows
    assert "FailedMount (x3)" in text
    assert "stranger" not in text


def test_logs_merge_replicas_by_time(api: Any, drakkar: Any) -> None:
    api.on("GET", f"{JOBS}/gpt", job())
    api.on("GET", PODS, listed(pod(0), pod(1)))
    api.on("GET", f"{PODS}/gpt-0/log", "2026-01-01T00:00:01Z one\n2026-01-01T00:00:03Z three [x]\n")
    api.on("GET", f"{PODS}/gpt-1/log", "2026-01-01T00:00:02Z two\n")
    assert drakkar("logs", "gpt").stdout.splitlines() == ["[0] one", "[1] two", "[0] three [x]"]


def test_logs_of_a_rank_are_those_of_its_replica(api: Any, drakkar: Any) -> None:
    api.on("GET", f"{JOBS}/gpt", job(spec={"processesPerReplica": 4}))
    api.on("GET", PODS, listed(pod(0), pod(1)))
    api.on("GET", f"{PODS}/gpt-1/log", "2026-01-01T00:00:02Z two\n")
    assert drakkar("logs", "gpt", "--rank", "6").stdout == "two\n"
    result = drakkar("logs", "gpt", "--rank", "8")
    assert result.exit_code == 1
    assert "ranks 0 to 7" in result.stderr


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for new pods often."""
    monkeypatch.setattr(logs, "_POLL_SECONDS", 0.1)


def test_logs_follow_a_pod_that_replaces_another(api: Any, drakkar: Any, quick: None) -> None:
    running = [{"name": "trainer", "state": {"running": {}}}]
    first, second = pod(0, containerStatuses=running), pod(0, containerStatuses=running)
    second["metadata"]["uid"] = "uid-new"
    api.on("GET", f"{JOBS}/gpt", job())
    api.on("GET", f"{JOBS}/gpt", job())
    api.on("GET", f"{JOBS}/gpt", job())
    api.on("GET", f"{JOBS}/gpt", job(conditions=[condition("Complete")]))
    api.on("GET", PODS, listed(first))
    api.on("GET", PODS, listed())
    api.on("GET", PODS, listed(second))
    api.on("GET", f"{PODS}/gpt-0/log", ["2026-01-01T00:00:01.5Z before"])
    api.on("GET", f"{PODS}/gpt-0/log", ["2026-01-01T00:00:09.5Z after"])
    result = drakkar("logs", "gpt", "-f")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == ["[0] before", "[0] after"]


def test_follow_resumes_a_broken_stream_without_repeating(
    api: Any, drakkar: Any, quick: None
) -> None:
    running = [{"name": "trainer", "state": {"running": {}}}]
    for _ in range(8):
        api.on("GET", f"{JOBS}/gpt", job())
    api.on("GET", f"{JOBS}/gpt", job(conditions=[condition("Complete")]))
    api.on("GET", PODS, listed(pod(0, containerStatuses=running)))
    one, two = "2026-01-01T00:00:01.1Z one", "2026-01-01T00:00:01.2Z two"
    api.on("GET", f"{PODS}/gpt-0/log", [one])
    api.on("GET", f"{PODS}/gpt-0/log", [one, two])
    result = drakkar("logs", "gpt", "-f", "--rank", "0")
    assert result.stdout.splitlines() == ["one", "two"]
    since = [query.get("sinceTime") for path, query, _ in api.sent("GET") if path.endswith("/log")]
    assert since[:2] == [None, "2026-01-01T00:00:01Z"]


@pytest.mark.parametrize(("word", "value"), [("suspend", True), ("resume", False)])
def test_suspend_and_resume(api: Any, drakkar: Any, word: str, value: bool) -> None:
    api.on("PATCH", f"{JOBS}/gpt", job())
    assert drakkar(word, "gpt").exit_code == 0
    ((_, _, body),) = api.sent("PATCH")
    assert body == {"spec": {"suspend": value}}


def test_delete(api: Any, drakkar: Any) -> None:
    api.on("DELETE", f"{JOBS}/gpt", {"kind": "Status"})
    assert drakkar("delete", "gpt").exit_code == 0
    assert api.sent("DELETE")[0][2] == {"propagationPolicy": "Background"}


@pytest.mark.parametrize(
    "arguments",
    [("get",), ("describe", "x"), ("logs", "x"), ("delete", "x"), ("suspend", "x")],
)
def test_errors_are_one_line_without_a_traceback(
    api: Any, drakkar: Any, arguments: tuple[str, ...]
) -> None:
    result = drakkar(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)


def test_version_without_a_cluster(drakkar: Any, tmp_path: Path) -> None:
    result = drakkar("version", "--kubeconfig", str(tmp_path / "none"))
    assert result.exit_code == 0
    assert result.stdout.startswith("drakkar 0.")
