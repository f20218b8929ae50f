"""What a service does now: the counts of its routers and the load of its replicas, as they tell it to
Prometheus. They are read by the API server's proxy with the user's own token."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from fastapi import APIRouter
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from pydantic import BaseModel, Field

from drakkar.constants import LABEL_MEMBER, LABEL_REPLICA, LABEL_ROLE, ROUTER_ROLE
from drakkar.kube.rest import ApiError, StreamError
from drakkar.routing import (
    LATENCY_BOUNDS,
    ROUTER_CONTROL_PORT,
    TPOT_BOUNDS,
    Histogram,
)
from drakkar_server.auth.caller import Asking, Caller
from drakkar_server.names import Name, Namespace
from drakkar_server.problems import from_api
from drakkar_server.services.router import pods_of, read_service

router = APIRouter(prefix="/api/v1", tags=["services"])
PREFIX: Final = "drakkar:router_"
MOST_PODS: Final = 64
"""Of a larger service so many replicas are asked."""
MOST_BYTES: Final = 4 << 20
SILENCE_SECONDS: Final = 5.0
RUNNING: Final = ("vllm:num_requests_running", "sglang:num_running_reqs")
WAITING: Final = ("vllm:num_requests_waiting", "sglang:num_queue_reqs")
USAGE: Final = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage")
Samples = list[Sample]


class Latency(BaseModel):
    """A time in seconds: half and nine tenths of the requests were faster."""

    count: int
    p50: float | None
    p90: float | None


class RevisionFigures(BaseModel):
    """What a revision's replicas did since the routers started."""

    name: str
    requests: int = Field(description="Attempts that ended.")
    failed: int
    cancelled: int = Field(description="The client left.")
    ttft: Latency = Field(description="Of streams, to the first token.")
    tpot: Latency = Field(description="Of streams, per later token.")
    latency: Latency = Field(description="Of whole answers.")
    prompt_tokens: int
    generation_tokens: int


class ReplicaFigures(BaseModel):
    """What a replica does at this moment; None where it does not tell."""

    pod: str
    member: str
    in_flight: int | None = Field(description="By the routers.")
    circuit_open: bool = Field(
        description="A router sends it nothing for a while: it failed too often."
    )
    running: int | None = Field(description="By its own engine.")
    waiting: int | None
    kv_usage: float | None = Field(description="Share of its cache of keys and values, 0 to 1.")


class Figures(BaseModel):
    """A service at this moment."""

    routers: int = Field(description="Routers that answered.")
    in_flight: int
    held: int = Field(description="Requests that wait for a replica.")
    retries: int
    refused: dict[str, int] = Field(description="By the routers themselves, by the error's code.")
    revisions: list[RevisionFigures]
    replicas: list[ReplicaFigures]
    problems: list[str] = Field(description="Why figures are missing.")


def parse(lines: Iterable[str]) -> Samples:
    """Samples of a page in Prometheus' format, up to the first line that is none. Pure."""
    found: Samples = []
    try:
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            found += family.samples
    except ValueError:
        pass
    return found


def summed(
    routers: list[Samples], replicas: Mapping[str, tuple[str, Samples]], problems: list[str]
) -> Figures:
    """The figures of a service. Pure.

    routers: what each says. replicas: pod -> (its member, what it says).
    """
    every = [sample for samples in routers for sample in samples]
    load = {
        s.labels.get("replica", ""): 0.0 for s in every if s.name == PREFIX + "replica_in_flight"
    }
    opened = set()
    for sample in every:
        if sample.name == PREFIX + "replica_in_flight":
            load[sample.labels.get("replica", "")] += sample.value
        elif sample.name == PREFIX + "replica_circuit_open" and sample.value:
            opened.add(sample.labels.get("replica", ""))
    return Figures(
        routers=len(routers),
        in_flight=_total(every, "requests_in_flight"),
        held=_total(every, "requests_held"),
        retries=_total(every, "retries_total"),
        refused={k: v for k, v in _by(every, "refused_total", "code").items() if v},
        revisions=[_revision(every, name) for name in _by(every, "requests_total", "revision")],
        replicas=[
            ReplicaFigures(
                pod=pod,
                member=member,
                in_flight=int(load[pod]) if pod in load else None,
                circuit_open=pod in opened,
                running=_count(_first(samples, RUNNING)),
                waiting=_count(_first(samples, WAITING)),
                kv_usage=_share(_first(samples, USAGE)),
            )
            for pod, (member, samples) in replicas.items()
        ],
        problems=problems,
    )


def _revision(every: Samples, name: str) -> RevisionFigures:
    own = [sample for sample in every if sample.labels.get("revision") == name]
    tokens = _by(own, "tokens_total", "kind")
    return RevisionFigures(
        name=name,
        requests=_total(own, "requests_total"),
        failed=_total(own, "errors_total"),
        cancelled=_total(own, "cancelled_total"),
        ttft=_latency(own, "time_to_first_token_seconds", LATENCY_BOUNDS),
        tpot=_latency(own, "time_per_output_token_seconds", TPOT_BOUNDS),
        latency=_latency(own, "request_latency_seconds", LATENCY_BOUNDS),
        prompt_tokens=tokens.get("prompt", 0),
        generation_tokens=tokens.get("generation", 0),
    )


def _total(samples: Samples, name: str) -> int:
    return int(sum(sample.value for sample in samples if sample.name == PREFIX + name))


def _by(samples: Samples, name: str, label: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for sample in samples:
        if sample.name == PREFIX + name:
            key = sample.labels.get(label, "")
            found[key] = found.get(key, 0) + int(sample.value)
    return found


def _latency(samples: Samples, name: str, bounds: tuple[float, ...]) -> Latency:
    below: defaultdict[float, float] = defaultdict(float)
    for sample in samples:
        if sample.name == f"{PREFIX}{name}_bucket":
            below[float(sample.labels.get("le", "inf"))] += sample.value
    counts, before = [], 0.0
    for bound in (*bounds, float("inf")):
        upto = below.get(bound, before)
        counts.append(max(0, int(upto - before)))
        before = max(before, upto)
    histogram = Histogram(counts=counts)
    return Latency(
        count=histogram.count,
        p50=histogram.quantile(0.5, bounds),
        p90=histogram.quantile(0.9, bounds),
    )


def _first(samples: Samples, names: tuple[str, ...]) -> list[float]:
    """Values of the first name that is told; several ranks of data parallelism tell one each."""
    for name in names:
        if found := [sample.value for sample in samples if sample.name == name]:
            return found
    return []


def _count(values: list[float]) -> int | None:
    return int(sum(values)) if values else None


def _share(values: list[float]) -> float | None:
    return min(1.0, max(0.0, sum(values) / len(values))) if values else None


async def figures_of(caller: Caller, namespace: str, service: Mapping[str, Any]) -> Figures:
    """The figures of a service as it was read. Raises ProblemError."""
    pods = await pods_of(caller, namespace, service["metadata"]["name"])
    port = int(((service.get("spec") or {}).get("runtime") or {}).get("port") or 8000)
    routers = [pod for pod in pods if _labels(pod).get(LABEL_ROLE) == ROUTER_ROLE]
    # The pod at the front of a replica of several speaks for all of it.
    servers = [
        pod
        for pod in pods
        if _labels(pod).get(LABEL_MEMBER) and _labels(pod).get(LABEL_REPLICA, "0") == "0"
    ]
    problems = []
    if len(servers) > MOST_PODS:
        problems.append(f"Only {MOST_PODS} of {len(servers)} replicas were asked.")
    asked = [
        *((pod, ROUTER_CONTROL_PORT) for pod in routers),
        *((pod, port) for pod in servers[:MOST_PODS]),
    ]
    answers = await asyncio.gather(*(_scrape(caller, namespace, pod, at) for pod, at in asked))
    problems += list(dict.fromkeys(answer for answer in answers if isinstance(answer, str)))
    told = [None if isinstance(answer, str) else answer for answer in answers]
    return summed(
        [samples for samples in told[: len(routers)] if samples is not None],
        {
            pod["metadata"]["name"]: (_labels(pod)[LABEL_MEMBER], samples or [])
            for (pod, _), samples in zip(asked[len(routers) :], told[len(routers) :], strict=True)
        },
        problems,
    )


def _labels(pod: Mapping[str, Any]) -> Mapping[str, str]:
    return pod["metadata"].get("labels") or {}


async def _scrape(
    caller: Caller, namespace: str, pod: Mapping[str, Any], port: int
) -> Samples | str:
    """What a pod tells, or why it tells nothing."""
    name = pod["metadata"]["name"]
    if (pod.get("status") or {}).get("phase") != "Running":
        return f"Pod {name} does not run yet."
    lines, size = [], 0
    try:
        async for line in caller.rest.lines(
            f"/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/metrics",
            {},
            silence=SILENCE_SECONDS,
        ):
            size += len(line)
            if size > MOST_BYTES:
                break
            lines.append(line.decode(errors="replace"))
    except ApiError as error:
        if error.status == 403:
            return (
                f"You may not ask the pods in {namespace}: that takes the right to get pods/proxy "
                "there, which the role edit has."
            )
        return from_api(error, f"Pod {name}").details.detail
    except StreamError as error:
        return f"Pod {name}: {error}."
    return parse(lines)


@router.get("/services/{namespace}/{name}/figures")
async def get_figures(caller: Asking, namespace: Namespace, name: Name) -> Figures:
    """Requests, latencies, tokens, queues and caches, asked of routers and replicas now."""
    return await figures_of(caller, namespace, await read_service(caller, namespace, name))
