"""One service: read and changed with the user's own rights, its figures, and a conversation with it."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from aiohttp import web

from drakkar.kube.rest import ApiError
from drakkar_server.services.actions import difference, going_back
from drakkar_server.services.chat import reason_of, told
from support import served
from support.server_world import ADMIN, ANN, BEN, World

SERVICES = "inferenceservices.drakkar.dev"
ONE = "/api/v1/services/ann/gpt"


def spec(here: World) -> dict[str, Any]:
    found: dict[str, Any] = here.kube.get(SERVICES, "gpt", "ann")["spec"]
    return found


async def seen(here: World) -> None:
    live = here.app.state.context.live
    await here.until(lambda: "ann/gpt" in live.services.items, "the service is seen")


async def test_figures_are_those_of_routers_and_replicas(here: World) -> None:
    served.put(here)
    found = (await here.client(ANN).get(f"{ONE}/figures")).json()
    assert (found["in_flight"], found["held"], found["problems"]) == (3, 2, [])
    stable, canary = found["revisions"]
    assert (stable["name"], stable["requests"], stable["failed"]) == ("aaaa", 100, 0)
    # All hundred lie between 0.1 and 0.25 s, spread evenly.
    assert stable["ttft"] == {
        "count": 100,
        "p50": pytest.approx(0.175),
        "p90": pytest.approx(0.235),
    }
    assert (canary["failed"], canary["ttft"]["p50"]) == (3, None)
    (replica,) = found["replicas"]
    assert (replica["in_flight"], replica["running"], replica["waiting"]) == (3, 2, 1)
    assert replica["kv_usage"] == 0.25


async def test_figures_that_are_missing_are_explained(here: World) -> None:
    served.put(here)
    here.api.proxied.clear()
    found = (await here.client(ANN).get(f"{ONE}/figures")).json()
    assert found["routers"] == 0
    assert found["replicas"][0]["kv_usage"] is None
    assert any("gpt-router-x" in problem for problem in found["problems"])


async def test_scaling_promoting_and_going_back(here: World) -> None:
    served.put(here)
    client = here.client(ANN)
    assert (await client.post(f"{ONE}/scale", json={"replicas": 5})).status_code == 200
    assert spec(here)["replicas"] == 5
    assert (await client.post(f"{ONE}/scale", json={"max": 5})).status_code == 409
    for wrong in ({}, {"replicas": 1, "max": 2}, {"replicas": -1}):
        assert (await client.post(f"{ONE}/scale", json=wrong)).status_code == 422
    assert spec(here)["model"]["pvc"]["path"] == "new"
    assert (await client.post(f"{ONE}/rollback")).status_code == 200
    assert spec(here)["model"]["pvc"]["path"] == "old"
    assert (await client.post(f"{ONE}/rollback")).status_code == 409
    assert (await client.post(f"{ONE}/promote")).status_code == 200
    assert "canary" not in spec(here)
    assert (await client.post(f"{ONE}/promote")).status_code == 409
    assert (await client.delete(ONE)).status_code == 200
    assert (SERVICES, "ann", "gpt") not in here.kube.objects


async def test_bounds_are_changed_where_the_operator_scales(here: World) -> None:
    here.service("gpt", scaling={"min": 1, "max": 2})
    answer = await here.client(ANN).post(f"{ONE}/scale", json={"max": 7})
    assert "between 1 and 7" in answer.json()["message"]
    assert spec(here)["scaling"] == {"min": 1, "max": 7}


async def test_others_services_can_neither_be_seen_nor_asked_nor_changed(here: World) -> None:
    served.put(here)
    await seen(here)
    client = here.client(BEN)
    question = {"messages": [{"role": "user", "content": "hi"}]}
    for path in (ONE, f"{ONE}/events", f"{ONE}/figures", f"{ONE}/stream"):
        assert (await client.get(path)).status_code == 404, path
    assert (await client.post(f"{ONE}/chat/stream", json=question)).status_code == 404
    for path, body in (("scale", {"replicas": 0}), ("promote", {}), ("rollback", {})):
        assert (await client.post(f"{ONE}/{path}", json=body)).status_code in (403, 404)
    assert (await client.delete(ONE)).status_code == 403
    assert (await client.get("/api/v1/services")).json()["items"] == []
    assert not any("/proxy/" in path for _, path in here.kube.requests)
    assert spec(here)["replicas"] == 3


def events(text: str) -> list[tuple[str, Any]]:
    found = []
    for part in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in part.splitlines() if ": " in line)
        if "event" in lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


async def ask(client: httpx.AsyncClient, text: str, **more: Any) -> list[tuple[str, Any]]:
    question = {"messages": [{"role": "user", "content": text}], **more}
    answer = await client.post(f"{ONE}/chat/stream", json=question)
    assert answer.status_code == 200, answer.text
    return events(answer.text)


@pytest.mark.parametrize("complete", [False, True])
async def test_an_answer_streams_with_its_usage(here: World, complete: bool) -> None:
    served.put(here)
    said = await ask(here.client(ANN), "In the beginning was", complete=complete)
    assert "".join(data.get("text", "") for _, data in said) == "In the beginning was"
    assert said[-2:] == [
        ("usage", {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6, "text": ""}),
        ("end", {"detail": ""}),
    ]


async def test_the_service_is_asked_as_the_user_within_bounds(here: World) -> None:
    served.put(here)
    asked = []

    async def remember(request: web.Request) -> web.StreamResponse:
        asked.append((request.path, request.headers["Authorization"], await request.json()))
        return web.json_response({"error": {"message": "no template"}}, status=400)

    here.api.proxied["/proxy/v1/chat/completions"] = remember
    ((kind, data),) = await ask(here.client(ANN), "hi", max_tokens=9, temperature=0)
    assert (kind, data["detail"]) == ("problem", "gpt refuses (400): no template")
    ((path, token, body),) = asked
    assert path == "/api/v1/namespaces/ann/services/gpt:http/proxy/v1/chat/completions"
    assert (token, body["model"], body["max_tokens"]) == (f"Bearer {ANN}", "gpt", 9)
    client = here.client(ANN)
    for wrong in (
        {"messages": []},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "user", "content": "x"}], "max_tokens": 100_000},
        {"messages": [{"role": "user", "content": "x" * 100_001}]},
    ):
        assert (await client.post(f"{ONE}/chat/stream", json=wrong)).status_code == 422
    assert (await client.post("/api/v1/services/ann/none/chat/stream", json={
        "messages": [{"role": "user", "content": "x"}]})).status_code == 404  # fmt: skip
    assert len(asked) == 1


async def test_a_reader_that_leaves_ends_the_request(here: World) -> None:
    served.put(here)
    begun, ended = asyncio.Event(), asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        try:
            while True:
                await answer.write(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n')
                begun.set()
                await asyncio.sleep(0.01)
        finally:
            ended.set()

    here.api.proxied["/proxy/v1/chat/completions"] = endless
    question = {"messages": [{"role": "user", "content": "hi"}]}
    async with here.client(ANN).stream("POST", f"{ONE}/chat/stream", json=question):
        await asyncio.wait_for(begun.wait(), 60)
    await asyncio.wait_for(ended.wait(), 60)


async def test_an_answer_that_breaks_off_is_told(here: World) -> None:
    served.put(here)

    async def broken(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b'data: {"choices":[{"delta":{"content":"He"}}]}\n\n')
        return answer

    here.api.proxied["/proxy/v1/chat/completions"] = broken
    said = await ask(here.client(ANN), "hi")
    assert [kind for kind, _ in said] == ["text", "problem"]


def test_lines_of_a_stream() -> None:
    assert told(b"") is None
    assert told(b": ping") is None
    assert told(b'data: {"choices":[{"delta":{"role":"assistant"}}]}') is None
    assert told(b'data: {"choices":[{"delta":{},"finish_reason":"length"}]}') == (
        "finish",
        {"reason": "length"},
    )
    for odd in (
        b"data: {",
        b"data: []",
        b"data: 7",
        b'data: {"choices":[7]}',
        b'data: {"choices":7}',
    ):
        event = told(odd)
        assert event is not None
        assert event[0] == "problem"
    event = told(b'data: {"error":{"message":"the engine is gone"}}')
    assert event == ("problem", {"detail": "the engine is gone"})


def test_a_refusal_says_which_right_is_missing() -> None:
    assert "services/proxy" in reason_of(ApiError(403, "Forbidden", "no"), "ann", "gpt")


def test_differences_are_merge_patches() -> None:
    now = {"a": {"b": 1, "c": 2}, "d": [1], "e": 5}
    wanted = {"a": {"b": 1, "f": {"g": 1}}, "d": [2]}
    assert difference(now, wanted) == {"a": {"c": None, "f": {"g": 1}}, "d": [2], "e": None}
    assert difference(now, now) == {}
    assert going_back({"spec": {}, "status": {}}) == ("", {})


async def test_a_service_is_made_of_a_manifest(here: World) -> None:
    client = here.client(ANN)
    manifest = {
        "apiVersion": "drakkar.dev/v1alpha1", "kind": "InferenceService",
        "metadata": {"name": "new", "namespace": "ann", "ownerReferences": [{"x": 1}]},
        "spec": {"model": {"trainingJob": {"name": "train"}}},
    }  # fmt: skip
    assert (await client.post("/api/v1/services", json=manifest)).status_code == 201
    meta = here.kube.get(SERVICES, "new", "ann")["metadata"]
    assert meta["annotations"]["drakkar.dev/created-by"] == "ann"
    assert "ownerReferences" not in meta
    assert (await here.client(BEN).post("/api/v1/services", json=manifest)).status_code == 403
    for body in ({}, {**manifest, "kind": "Pod"}, {**manifest, "spec": {"replicas": -1}},
                 {**manifest, "metadata": {"name": "../x"}}, {**manifest, "metadata": 7}):  # fmt: skip
        assert (await here.client(ADMIN).post("/api/v1/services", json=body)).status_code == 422
