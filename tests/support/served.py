"""A service with a canary as the operator shows it, and what its router and replica tell."""

import json
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from drakkar.routing import LATENCY_BOUNDS, TPOT_BOUNDS, Histogram, RevisionStats, RouterStats
from drakkar_workers.serve.router.metrics import RouterCollector
from support.fake_kube import running
from support.server_world import World

Object = dict[str, Any]
SINCE = "2026-01-01T00:00:00Z"
OLD = {"model": {"pvc": {"claimName": "models", "path": "old"}}}


def condition(kind: str, status: str, reason: str = "Serving", message: str = "") -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": SINCE}  # fmt: skip


def on_trial() -> Object:
    """Status of a service of two stable replicas and a canary."""
    place = {"level": "host", "domain": "node-0", "nodes": ["node-0"]}

    def member(name: str, revision: str, state: str, **more: Any) -> Object:
        return {
            "name": name,
            "revision": revision,
            "state": state,
            "since": SINCE,
            "asked": SINCE,
            **more,
        }

    return {
        "conditions": [condition("Ready", "True", message="2 of 3 replicas are ready"),
                       condition("Reconciling", "True", "Progressing", "revision bbbb comes")],
        "url": "http://gpt.ann.svc.cluster.local/v1",
        "replicas": 3, "readyReplicas": 2, "desiredReplicas": 3, "stableRevision": "aaaa",
        "traffic": [{"revision": "aaaa", "weight": 90, "replicas": 2, "readyReplicas": 2},
                    {"revision": "bbbb", "weight": 10, "replicas": 1, "readyReplicas": 0}],
        "canary": {"revision": "bbbb", "state": "Running", "since": SINCE},
        "members": [member("0", "aaaa", "Ready", placement=place, restarts=1),
                    member("1", "aaaa", "Ready", placement=place),
                    member("2", "bbbb", "Pending", pendingReason="needs 1 nvidia.com/gpu, free are 0")],
        "revisions": [{"name": "aaaa", "created": SINCE, "spec": OLD, "modelPath": "old"},
                      {"name": "bbbb", "created": SINCE, "modelPath": "new",
                       "spec": {"model": {"pvc": {"claimName": "models", "path": "new"}}}}],
        "restartCount": 1, "scaled": SINCE,
        "restarts": [{"id": "r", "time": SINCE, "scope": "pod", "reason": "ServerDied",
                      "message": "the server of gpt-serve-0 ended with code 137"}],
    }  # fmt: skip


def put(here: World, name: str = "gpt", namespace: str = "ann") -> None:
    """The service with its pods and events in the cluster."""
    here.service(
        name, namespace, on_trial(), model={"pvc": {"claimName": "models", "path": "new"}},
        accelerators=None, canary={"weight": 10}, replicas=3,
    )  # fmt: skip
    pods = {
        f"{name}-router-x": {"drakkar.dev/role": "router"},
        f"{name}-serve-0": {"drakkar.dev/member": "0"},
    }
    for pod, labels in pods.items():
        meta = {
            "name": pod,
            "namespace": namespace,
            "labels": {"drakkar.dev/service": name, **labels},
        }
        here.kube.put(
            "pods", {"metadata": meta, "spec": {"containers": []}, "status": running("127.0.0.1")}
        )
    here.kube.put("events", {
        "metadata": {"name": "e", "namespace": namespace}, "type": "Normal", "reason": "Scaled", "count": 1,
        "message": "from 1 to 3 replicas: spec.replicas", "lastTimestamp": SINCE,
        "involvedObject": {"kind": "InferenceService", "name": name, "namespace": namespace},
    })  # fmt: skip
    here.api.proxied[":8601/proxy/metrics"] = _router
    here.api.proxied[":8000/proxy/metrics"] = _engine
    here.api.proxied["/proxy/v1/chat/completions"] = echo
    here.api.proxied["/proxy/v1/completions"] = echo


async def _router(_request: web.Request) -> web.Response:
    def times(bounds: tuple[float, ...], *buckets: int) -> Histogram:
        counts = [100 * (i in buckets) for i in range(len(bounds) + 1)]
        return Histogram(counts=counts, sum=1.0)

    def all_times(*buckets: tuple[int, ...]) -> dict[str, Histogram]:
        first, later, whole = buckets or ((), (), ())
        return {"ttft": times(LATENCY_BOUNDS, *first), "tpot": times(TPOT_BOUNDS, *later),
                "latency": times(LATENCY_BOUNDS, *whole)}  # fmt: skip

    stats = RouterStats(
        uid="u", instance="i", version=1, table_version=1, in_flight=3, held=2,
        revisions=[RevisionStats(name="aaaa", requests=100, prompt_tokens=900, generation_tokens=4000,
                                 **all_times((4,), (4,), (7,))),
                   RevisionStats(name="bbbb", requests=10, errors={"server": 2, "client": 1}, **all_times())],
        endpoints=[{"name": "gpt-serve-0", "in_flight": 3}],
    )  # fmt: skip
    registry = CollectorRegistry()
    registry.register(RouterCollector(lambda: stats))
    return web.Response(body=generate_latest(registry))


async def _engine(_request: web.Request) -> web.Response:
    text = 'vllm:num_requests_running{model_name="m"} 2\nvllm:num_requests_waiting 1\nvllm:kv_cache_usage_perc 0.25\n'
    return web.Response(text=text)


async def echo(request: web.Request) -> web.StreamResponse:
    """Answers with what was asked, in pieces."""
    body = await request.json()
    asked = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    pieces = [asked[i : i + 8] for i in range(0, len(asked), 8)]
    for piece in pieces:
        choice = {"text": piece} if "prompt" in body else {"delta": {"content": piece}}
        await answer.write(_chunk({"choices": [choice]}))
    usage = {"prompt_tokens": 3, "completion_tokens": len(pieces), "total_tokens": 3 + len(pieces)}
    await answer.write(_chunk({"choices": [], "usage": usage}) + b"data: [DONE]\n\n")
    return answer


def _chunk(data: Object) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"
