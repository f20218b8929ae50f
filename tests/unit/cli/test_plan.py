"""``drakkar plan`` and ``drakkar debug`` against a server."""

import importlib.metadata
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from drakkar.cli.show import ordinal

JOBS = "/apis/drakkar.dev/v1alpha1/namespaces/default/trainingjobs"
GROUP = "/apis/drakkar.dev/v1alpha1"
RESOURCES = {"resources": [{"name": "trainingjobs", "kind": "TrainingJob", "namespaced": True}]}
SERVICE = "/api/v1/namespaces/drakkar-system/services"
PLAN = f"{SERVICE}/drakkar-operator%3Aplan/proxy/plan"
SNAPSHOT = f"{SERVICE}/drakkar-operator%3Adebug/proxy/snapshot"
PLACEMENT = {"level": "rack", "domain": "b1/r2", "nodes": ["n1", "n1", "n2"]}


@pytest.fixture
def manifest(tmp_path: Path, api: Any) -> str:
    """A file with a job that the API server accepts, filling in a default."""
    job = {
        "apiVersion": "drakkar.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "gpt"},
        "spec": {"replicas": 4, "recipe": {"name": "pretrain"}},
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    api.on("GET", GROUP, RESOURCES)
    stored = {**job, "metadata": {"name": "gpt", "namespace": "default", "uid": "u"}}
    api.on("PATCH", f"{JOBS}/gpt", stored)
    return str(path)


def answered(outcome: str, **rest: Any) -> dict[str, Any]:
    return {"namespace": "default", "name": "gpt", "outcome": outcome, **rest}


def test_plan_asks_with_what_the_api_server_would_store(
    api: Any, drakkar: Any, manifest: str
) -> None:
    api.on("POST", PLAN, {"jobs": [answered("starts", placement=PLACEMENT)]})
    result = drakkar("plan", manifest)
    assert result.exit_code == 0, result.output
    assert "default/gpt  would start now in rack b1/r2" in result.stdout
    assert "n1: replicas 0-1" in result.stdout
    ((_, query, _),) = api.sent("PATCH")
    assert query["dryRun"] == "All"
    ((_, _, body),) = api.sent("POST")
    assert body["jobs"][0]["metadata"]["uid"] == "u"


def test_plan_says_what_a_job_would_wait_for(api: Any, drakkar: Any, manifest: str) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=20, seconds=30)).isoformat()
    eviction = {"namespace": "a", "name": "b", "cause": "Preempted", "message": "its priority is 1"}
    plan = answered(
        "waits",
        reason="needs 4 nodes",
        queue="research",
        position=2,
        expectedStart=soon,
        evictions=[eviction],
    )
    api.on("POST", PLAN, {"jobs": [plan], "heldUp": ["default/small"]})
    result = drakkar("plan", manifest)
    assert result.exit_code == 0, result.output
    assert "would wait, 2nd in queue research" in result.stdout
    assert "needs 4 nodes" in result.stdout
    assert "room is expected in about 20m" in result.stdout
    assert "a/b would be stopped: its priority is 1" in result.stdout
    assert "held up by this: default/small" in result.stdout


def test_plan_for_programs(api: Any, drakkar: Any, manifest: str) -> None:
    body = {"jobs": [answered("suspended")]}
    api.on("POST", PLAN, body)
    assert json.loads(drakkar("plan", manifest, "-o", "json").stdout) == body


def test_plan_refuses_mistakes_before_it_asks(api: Any, drakkar: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "drakkar.dev/v1alpha1",
                "kind": "TrainingJob",
                "metadata": {"name": "gpt"},
                "spec": {"replicas": 0},
            }
        )
    )
    result = drakkar("plan", str(path))
    assert result.exit_code == 1
    assert "spec.replicas" in result.stderr
    assert api.requests == []


def test_another_operator(api: Any, drakkar: Any, manifest: str) -> None:
    api.on("POST", "/api/v1/namespaces/ops/services/mine%3Aplan/proxy/plan", {"jobs": []})
    assert drakkar("plan", manifest, "--operator", "ops/mine").exit_code == 0
    result = drakkar("plan", manifest, "--operator", "mine")
    assert result.exit_code == 1
    assert "write NAMESPACE/SERVICE" in result.stderr


@pytest.mark.parametrize(
    ("status", "details", "message"),
    [
        (404, {"message": 'services "x" not found'}, "There is no service drakkar-system/"),
        (403, {"message": 'cannot create resource "services/proxy"'}, "Not allowed: cannot create"),
        (503, {"message": "no endpoints available"}, "gets no answer from service"),
        (
            503,
            {"reason": "OperatorRefused", "message": "no operator leads"},
            "operator refuses: no",
        ),
        (400, {"reason": "OperatorRefused", "message": "plan.jobs: wrong"}, "plan.jobs: wrong"),
    ],
)
def test_refusals_say_what_to_do(
    api: Any, drakkar: Any, manifest: str, status: int, details: dict[str, str], message: str
) -> None:
    api.refuse("POST", PLAN, status, **details)
    result = drakkar("plan", manifest)
    assert result.exit_code == 1
    assert message in result.stderr


def test_snapshot_prints_what_the_operator_sends(api: Any, drakkar: Any) -> None:
    api.on("GET", SNAPSHOT, {"version": 2})
    assert json.loads(drakkar("debug", "snapshot").stdout) == {"version": 2}
    drakkar("debug", "snapshot", "--job", "gpt")
    assert [query for _, query, _ in api.sent("GET")] == [{}, {"job": "default/gpt"}]


def test_replay_runs_the_operators_code(drakkar: Any, tmp_path: Path) -> None:
    path = tmp_path / "snapshot.json"
    path.write_text("{}")
    result = drakkar("debug", "replay", str(path))
    assert result.exit_code == 1
    assert "version None" in result.stderr


def test_replay_without_the_operator_says_what_to_install(
    drakkar: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: ())
    result = drakkar("debug", "replay", "x")
    assert result.exit_code == 1
    assert "pip install 'drakkar[operator]'" in result.stderr


def test_ordinals() -> None:
    numbers = (1, 2, 3, 4, 11, 12, 13, 21, 102, 111)
    assert [ordinal(number) for number in numbers] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th",
    ]  # fmt: skip
