"""How much CPU and memory the operator takes: python tests/bench/operator.py [--pods 10000]

A fake API server in a process of its own serves the pods; the measured processes do nothing but
look at them, then reconcile. CPU is that of the measured process alone. The peer in the same run:
the official client's typed models, on fewer pods, per pod.

Measured beside others on shared machines: compare the columns of one run, not runs.
"""
# ruff: noqa: E402

import sys
from pathlib import Path

# As a script this file's folder comes first on the path, and the standard library has an `operator`.
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import subprocess
import time
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
Object = dict[str, Any]


def pod(number: int) -> Object:
    """A training pod as the API server gives it: about 5 kB."""
    name = f"job-{number // 8}-{number % 8}"
    sys.path.insert(0, str(TESTS))
    from support.fake_kube import running

    status = running("10.0.0.1")
    status["containerStatuses"][0] |= {"image": "i", "imageID": "i", "restartCount": 0}
    environment = [{"name": f"VARIABLE_{i}", "value": "x" * 40} for i in range(20)]
    requests = {"cpu": "4", "memory": "32Gi", "nvidia.com/gpu": "1"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"00000000-0000-0000-0000-{number:012}",
            "resourceVersion": str(number + 100),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {
                "app.kubernetes.io/name": "trainingjob",
                "app.kubernetes.io/managed-by": "drakkar",
                "drakkar.dev/job": f"job-{number // 8}",
                "drakkar.dev/job-uid": f"uid-{number // 8}",
                "drakkar.dev/replica": str(number % 8),
            },
            "managedFields": [
                {"manager": "m", "fieldsV1": {f"f:field-{i}": {} for i in range(60)}}
            ],
        },
        "spec": {
            "nodeName": f"node-{number // 8 % 1250}",
            "containers": [
                {
                    "name": "trainer",
                    "image": "registry.example/trainer:1",
                    "env": environment,
                    "resources": {"requests": requests, "limits": requests},
                    "volumeMounts": [{"name": f"v{i}", "mountPath": f"/v{i}"} for i in range(6)],
                }
            ],
            "volumes": [{"name": f"v{i}", "emptyDir": {}} for i in range(6)],
        },
        "status": {
            **status,
            "conditions": [
                {"type": t, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
                for t in ("Ready", "Initialized", "ContainersReady", "PodScheduled")
            ],
        },
    }


def serve(count: int, events: int, port: Any) -> None:
    """The API server: pages of pods, then ``events`` changes as fast as they are read."""
    import orjson
    from aiohttp import web

    pods = [pod(i) for i in range(count)]

    async def answer(request: web.Request) -> web.StreamResponse:
        query = request.query
        if query.get("watch"):
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            if "pods" in request.path:
                batch = []
                for i in range(events):
                    raw = pods[i % count]
                    raw["metadata"]["resourceVersion"] = str(count + 1000 + i)
                    raw["status"]["podIP"] = f"10.1.{i % 250}.{i // 250 % 250}"
                    batch.append(orjson.dumps({"type": "MODIFIED", "object": raw}))
                    if len(batch) == 50:
                        await response.write(b"\n".join(batch) + b"\n")
                        batch.clear()
            await asyncio.sleep(600)
            return response
        items = pods if "pods" in request.path else []
        start, limit = int(query.get("continue") or 0), int(query.get("limit") or count)
        meta = {"resourceVersion": str(count + 500)}
        if start + limit < len(items):
            meta["continue"] = str(start + limit)
        body = {"kind": "List", "metadata": meta, "items": items[start : start + limit]}
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port.value = runner.addresses[0][1]
        await asyncio.sleep(3600)

    asyncio.run(main())


def usage() -> tuple[float, float]:
    """(CPU seconds, resident MiB) of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    times = resource.getrusage(resource.RUSAGE_SELF)
    return times.ru_utime + times.ru_stime, pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def informer(server: str, count: int, events: int) -> Object:
    """List, then follow changes, with all of the operator's caches."""
    from drakkar.kube.connection import Connection
    from drakkar_operator.app import Operator
    from drakkar_operator.settings import Settings

    operator = Operator(Settings(), Connection(server))
    pods = operator.core.caches.pods
    changes = 0

    def count_change(*_: object) -> None:
        nonlocal changes
        changes += 1

    base, memory = usage()
    task = asyncio.create_task(pods.run())
    await pods.synced.wait()
    listed, after = usage()
    pods.subscribe(count_change)
    while changes == 0:
        await asyncio.sleep(0.001)
    started, first = usage()[0], changes
    while changes < events - 100:
        await asyncio.sleep(0.01)
    per_event = (usage()[0] - started) / (changes - first)
    task.cancel()
    return {
        "list CPU s": listed - base,
        "before MiB": memory,
        "after MiB": after,
        "events/s": 1 / per_event,
        "per pod us": (listed - base) / count * 1e6,
    }


async def typed(server: str, count: int, *_: object) -> Object:
    """The official client's models."""
    from kubernetes.aio import client

    base, memory = usage()
    async with client.ApiClient(client.Configuration(host=server)) as api:
        kept = await client.CoreV1Api(api).list_pod_for_all_namespaces(limit=count)
    listed, after = usage()
    assert len(kept.items) == count
    return {
        "list CPU s": listed - base,
        "before MiB": memory,
        "after MiB": after,
        "per pod us": (listed - base) / count * 1e6,
    }


async def reconciles(*_: object) -> Object:
    """Whole lives of jobs against an API server in memory: every request is answered at once."""
    sys.path.insert(0, str(TESTS))
    from support.fake_kube import JOBS, training_job
    from support.operator_world import Process, World

    world = World(nodes=100)
    process = Process(world.kube)
    jobs = 100
    while not process.core.leader.leading:
        await asyncio.sleep(0.01)
    base = usage()[0]
    started = time.perf_counter()
    for i in range(jobs):
        world.kube.put(JOBS, training_job(f"job-{i}", replicas=4))
    while any(world.phase(f"job-{i}") != "Running" for i in range(jobs)):
        await asyncio.sleep(0.01)
    seconds = time.perf_counter() - started
    samples = process.core.metrics.registry.get_sample_value
    total = samples("drakkar_operator_reconcile_total", {"result": "ok"}) or 0.0
    spent = samples("drakkar_operator_reconcile_duration_seconds_sum") or 0.0
    cpu = usage()[0] - base
    await process.terminate()
    await world.close()
    return {
        "gangs running/s": jobs / seconds,
        "pods/s": 4 * jobs / seconds,
        "reconciles": total,
        "CPU ms/gang, server included": cpu / jobs * 1e3,
        "mean reconcile ms": spent / max(total, 1) * 1e3,
    }


MEASURES = {"informer": informer, "typed": typed, "reconciles": reconciles}


def measure(name: str, *arguments: object) -> Object:
    """Run one measurement in a fresh process."""
    command = [sys.executable, __file__, "--measure", name, *map(str, arguments)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: Object = json.loads(text.splitlines()[-1])
    return result


def main() -> None:
    """Run all and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        import logging

        import structlog

        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
        name, *rest = options.measure
        values = [int(v) if v.isdecimal() else v for v in rest]
        print(json.dumps(asyncio.run(MEASURES[name](*values))))
        return
    rows: list[tuple[str, Object]] = []
    for name, count in (("informer", options.pods), ("typed", 1000)):
        port = multiprocessing.Value("i", 0)
        server = multiprocessing.Process(
            target=serve, args=(count, options.events, port), daemon=True
        )
        server.start()
        while not port.value:
            time.sleep(0.05)
        address = f"http://127.0.0.1:{port.value}"
        rows.append((f"{name}, {count} pods", measure(name, address, count, options.events)))
        server.terminate()
    rows.append(("reconciles, 100 gangs of 4", measure("reconciles")))
    for title, values in rows:
        print(title)
        for name, value in values.items():
            print(f"    {name:32}{value:12.1f}")
    ratio = rows[1][1]["per pod us"] / rows[0][1]["per pod us"]
    print(f"the official client's models take {ratio:.1f} times as much CPU per pod")


if __name__ == "__main__":
    main()
