"""Tables of what happens now, and the same for programs."""

import json
from typing import Any

import yaml

GROUP = "/apis/drakkar.dev/v1alpha1"
JOBS = f"{GROUP}/namespaces/default/trainingjobs"
EVENTS = "/api/v1/namespaces/default/events"


def listed(*items: Any) -> dict[str, Any]:
    return {"kind": "List", "metadata": {"resourceVersion": "5"}, "items": list(items)}


def job(name: str, count: int = 1, queue: str | None = None, **status: Any) -> dict[str, Any]:
    spec = {"replicas": 2, "recipe": {"name": "pretrain"}, "queue": queue,
            "accelerators": {"resource": "nvidia.com/gpu", "count": count}}  # fmt: skip
    meta = {"name": name, "namespace": "default", "resourceVersion": "1"}
    return {"apiVersion": "drakkar.dev/v1alpha1", "kind": "TrainingJob", "metadata": meta,
            "spec": spec, "status": status}  # fmt: skip


PLACE = {"level": "rack", "domain": "r", "nodes": ["n1", "n1"]}


def test_top_shows_who_holds_most_first(api: Any, drakkar: Any) -> None:
    ended = {
        "type": "Complete",
        "status": "True",
        "reason": "x",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    api.on("GET", JOBS, listed(
        job("small", 1, placement=PLACE, phase="Running"),
        job("large", 8, placement=PLACE, phase="Running", progress={"step": 7, "totalSteps": 9}),
        job("waits", 8),
        job("ended", 8, placement=PLACE, conditions=[ended]),
    ))  # fmt: skip
    found = json.loads(drakkar("top", "-o", "json").stdout)
    assert [(r["job"], r["devices"], r["nodes"], r["step"]) for r in found] == [
        ("large", 16, 1, 7),
        ("small", 2, 1, None),
    ]
    table = drakkar("top").stdout.splitlines()
    assert table[0].split()[:4] == ["NAMESPACE", "JOB", "PHASE", "REPLICAS"]
    assert table[1].split()[1] == "large"


def test_queue_lists_books_and_who_is_in_it(api: Any, drakkar: Any) -> None:
    raw = {"apiVersion": "drakkar.dev/v1alpha1", "kind": "Queue", "metadata": {"name": "q"},
           "spec": {"quota": {"cpu": 4}}, "status": {"used": {"cpu": "2"}, "pending": 1}}  # fmt: skip
    api.on("GET", f"{GROUP}/queues", listed(raw))
    api.on("GET", f"{GROUP}/queues/q", raw)
    api.on("GET", f"{GROUP}/trainingjobs", listed(
        job("later", queue="q", queuePosition=2, pendingReason="no room"),
        job("next", queue="q", queuePosition=1),
        job("runs", queue="q", placement=PLACE, phase="Running"),
        job("other", queue="p"),
    ))  # fmt: skip
    (books,) = yaml.safe_load(drakkar("queue", "-o", "yaml").stdout)
    assert (books["used"], books["pending"]) == ({"cpu": "2"}, 1)
    assert "cpu=4" in drakkar("queue").stdout
    found = json.loads(drakkar("queue", "q", "-o", "json").stdout)
    assert [record["job"] for record in found] == ["runs", "next", "later"]


def test_events_are_in_order_and_of_one_job_if_asked(api: Any, drakkar: Any) -> None:
    def event(name: str, time: str) -> dict[str, Any]:
        return {"metadata": {"name": name, "creationTimestamp": time}, "eventTime": time, "type": "Normal",
                "involvedObject": {"name": "gpt"}, "reason": name, "message": "[red]m[/]"}  # fmt: skip

    api.on(
        "GET",
        EVENTS,
        listed(event("B", "2026-01-02T00:00:00Z"), event("A", "2026-01-01T00:00:00Z")),
    )
    lines = drakkar("events", "gpt").stdout.splitlines()
    assert [line.split()[3] for line in lines[1:]] == ["A", "B"]
    assert "[red]m[/]" in lines[1]
    ((_, query, _),) = api.sent("GET")
    assert query["fieldSelector"] == "involvedObject.kind=TrainingJob,involvedObject.name=gpt"


def test_nothing_is_said_to_be_nothing(api: Any, drakkar: Any) -> None:
    api.on("GET", JOBS, listed())
    assert "No job holds a place" in drakkar("top").stdout
    assert drakkar("top", "-o", "json").stdout.strip() == "[]"
