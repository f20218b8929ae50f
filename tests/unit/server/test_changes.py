"""Submitting and changing jobs: with the user's own rights, and each mistake told."""

from typing import Any

from support.fake_kube import training_job
from support.server_world import ADMIN, ANN, BEN, World

JOBS = "trainingjobs.drakkar.dev"


def manifest(name: str = "one", **meta: Any) -> dict[str, Any]:
    raw = training_job(name, namespace="ann")
    raw["metadata"] |= meta
    return raw


async def test_a_submission_is_stored_with_its_author(here: World) -> None:
    answer = await here.client(ANN).post("/api/v1/jobs", json=manifest(ownerReferences=[{"x": 1}]))
    assert answer.status_code == 201, answer.text
    stored = here.kube.get(JOBS, "one", "ann")
    assert stored["metadata"]["annotations"]["drakkar.dev/created-by"] == "ann"
    assert "ownerReferences" not in stored["metadata"]
    again = await here.client(ANN).post("/api/v1/jobs", json=manifest())
    assert again.status_code == 409


async def test_who_may_not_write_is_refused_by_the_cluster(here: World) -> None:
    here.kube.put(JOBS, manifest("theirs"))
    client = here.client(BEN)
    assert (await client.post("/api/v1/jobs", json=manifest("mine"))).status_code == 403
    for path in ("suspend", "resume"):
        assert (await client.post(f"/api/v1/jobs/ann/theirs/{path}")).status_code == 403
    assert (await client.delete("/api/v1/jobs/ann/theirs")).status_code == 403
    body = {"action": "delete", "jobs": [{"namespace": "ann", "name": "theirs"}]}
    (outcome,) = (await client.post("/api/v1/jobs/bulk", json=body)).json()
    assert outcome["done"] is False
    assert here.kube.get(JOBS, "theirs", "ann")


async def test_mistakes_are_named_by_field(here: World) -> None:
    bad = manifest()
    bad["spec"]["replicas"] = 0
    answer = await here.client(ANN).post("/api/v1/jobs", json=bad)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "spec.replicas"
    for body in (
        [],
        {"kind": "Pod"},
        {"apiVersion": "drakkar.dev/v1alpha1", "kind": "TrainingJob"},
        manifest("../x"),
        {**manifest(), "metadata": {"name": "a", "namespace": "../kube-system"}},
    ):
        refused = await here.client(ADMIN).post("/api/v1/jobs", json=body)
        assert refused.status_code == 422, body


async def test_suspend_resume_scale_clone_delete(here: World) -> None:
    here.kube.put(JOBS, manifest())
    client = here.client(ANN)
    assert (await client.post("/api/v1/jobs/ann/one/suspend")).status_code == 200
    assert here.kube.get(JOBS, "one", "ann")["spec"]["suspend"] is True
    assert (
        await client.post("/api/v1/jobs/ann/one/scale", json={"replicas": 4})
    ).status_code == 200
    copy = {"name": "two", "spec": {"queue": "q"}, "restore_from": None}
    answer = await client.post("/api/v1/jobs/ann/one/clone", json=copy)
    assert answer.status_code == 201, answer.text
    two = here.kube.get(JOBS, "two", "ann")
    assert (two["spec"]["replicas"], two["spec"]["queue"]) == (4, "q")
    assert "suspend" not in two["spec"]
    body = {
        "action": "delete",
        "jobs": [{"namespace": "ann", "name": n} for n in ("one", "no", "two")],
    }
    outcomes = (await client.post("/api/v1/jobs/bulk", json=body)).json()
    assert [o["done"] for o in outcomes] == [True, False, True]


async def test_history_outlives_the_job(here: World) -> None:
    client = here.client(ANN)
    progress = {"step": 7, "totalSteps": 10, "loss": 1.5}
    restart = {"id": "r", "time": "2026-01-01T00:00:00Z", "scope": "pod", "reason": "PodDeleted"}
    env = [{"name": "API_KEY", "value": "hunter2"}]
    template = {"spec": {"containers": [{"name": "trainer", "image": "any", "env": env}]}}
    here.job(
        "one",
        status={"phase": "Running", "progress": progress, "restarts": [restart]},
        template=template,
    )
    await here.sees("ann/one")
    here.kube.remove(JOBS, "ann", "one")
    recorder = here.app.state.context.history.recorder
    await here.until(
        lambda: recorder.up and not len(recorder._batch) and recorder._written, "it is written"
    )
    await here.until(lambda: not here.app.state.context.live.jobs.items, "it is gone")
    await recorder.flush()
    found = (await client.get("/api/v1/history/jobs/ann/one")).json()
    assert found["restarts"][0]["reason"] == "PodDeleted"
    assert found["job"]["deleted"]
    assert "hunter2" not in str(found)
    points = (await client.get("/api/v1/history/jobs/ann/one/metrics/loss")).json()
    assert [(p["step"], p["value"]) for p in points] == [(7, 1.5)]
    other = here.client(BEN)
    for path in ("/api/v1/history/jobs/ann/one", "/api/v1/history/jobs/ann/one/metrics/loss"):
        assert (await other.get(path)).status_code == 404
    assert (await other.get("/api/v1/history/jobs")).json()["total"] == 0
    assert (await client.get("/api/v1/history/jobs?search=on")).json()["total"] == 1
