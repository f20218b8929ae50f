"""How fast pages and API answer over a long history: 50,000 jobs, 10 million points of metrics.

    python tests/bench/history.py                 SQLite, and PostgreSQL (installed if need be)
    python tests/bench/history.py sqlite --jobs 5000 --points 1000000

The server is a process of its own before a fake API server with LIVE running jobs in as many
namespaces as history has. Every address is asked RUNS times, one request at a time. The table has
medians and p95 in milliseconds, then the server's memory.
"""

import argparse
import asyncio
import contextlib
import json
import random
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import yaml
from sqlalchemy import insert, inspect, text

sys.path.insert(0, str(Path(__file__).parents[1]))

from drakkar_server.db import tables as t
from drakkar_server.db.engine import migrate, open_engine
from drakkar_server.history.extract import series_id
from support import fake_kube
from support.postgres import postgres
from support.server_world import ADMIN, ANN, GuardedServer, RightsKube

LIVE, NODES, RUNS = 5_000, 256, 40
LONG_JOBS, LONG_STEPS = 100, 20_000
NAMESPACES = [f"team-{index:03}" for index in range(199)] + ["ann"]
DAY = 86400.0
NOW = time.time()
PHASES = ("Complete",) * 7 + ("Failed",) * 2 + ("Running",)
SPEC = {"replicas": 8, "recipe": {"name": "pretrain", "config": {"model": {"layers": 32, "hidden": 4096},
        "steps": 20_000, "batchSize": 512, "data": {"source": "x" * 600}}}}  # fmt: skip


def rows(jobs):
    """Rows of all tables but points, by table."""
    chance = random.Random(0)
    tables = (t.jobs, t.restarts, t.checkpoints, t.placements, t.events, t.holdings)
    found = {table: [] for table in tables}
    for index in range(jobs):
        created = NOW - chance.random() * 300 * DAY
        phase = chance.choice(PHASES)
        ended = None if phase == "Running" else created + chance.random() * 2 * DAY
        uid = f"uid-{index:06}"
        named = {"namespace": NAMESPACES[index % len(NAMESPACES)], "queue": f"queue-{index % 50}",
                 "user": f"user-{index % 500}"}  # fmt: skip
        found[t.jobs].append(
            {"uid": uid, "name": f"job-{index:06}", **named, "phase": phase, "created": created,
             "started": created + 60, "ended": ended, "deleted": ended and ended + 3600,
             "updated": ended or NOW, "version": index, "replicas": 8, "ranks": 64, "accelerators": 64,
             "step": 20_000, "total_steps": 20_000, "loss": chance.random() * 5,
             "tokens_per_second": 1e5, "goodput": chance.random(), "restarts": index % 4,
             "reason": "Node node-17 was lost.", "domain": f"rack-{index % 64}", "spec": SPEC}
        )  # fmt: skip
        for number in range(index % 4):
            found[t.restarts].append(
                {"job_uid": uid, "id": f"r{number}", "time": created + 600 * number, "scope": "pod",
                 "reason": "PodFailed", "message": "exit code 1 of rank 7", "replica": 1, "node": "node-17",
                 "seconds_lost": 20.0, "steps_lost": 3, "resumed_from": "memory", "counted": True}
            )  # fmt: skip
        for number in range(3):
            found[t.checkpoints].append(
                {"job_uid": uid, "step": number, "path": f"{uid}/{number}", "time": created}
            )
            found[t.events].append(
                {"id": f"{uid}-{number}", "namespace": named["namespace"], "name": f"job-{index:06}",
                 "job_uid": uid, "type": "Normal", "reason": "Placed", "message": "on rack-1",
                 "first": created, "last": created + number, "count": 1}
            )  # fmt: skip
        found[t.placements].append(
            {"job_uid": uid, "id": "p", "time": created, "level": "rack", "domain": "rack-1",
             "nodes": [f"node-{n}" for n in range(8)]}
        )  # fmt: skip
        for resource, amount in (("cpu", 256.0), ("nvidia.com/gpu", 64.0)):
            found[t.holdings].append(
                {"job_uid": uid, "since": created + 60, "resource": resource, "amount": amount,
                 "ended": ended, **named}
            )  # fmt: skip
    return found


async def fill(engine, jobs, points):
    """All tables; the points by the database itself."""
    await migrate(engine)
    found = rows(jobs)
    long = min(LONG_JOBS, jobs)
    rest = max(1, (points - 2 * long * LONG_STEPS) // (2 * max(1, jobs - long)))
    sizes = [
        (series_id(f"uid-{index:06}", name), f"uid-{index:06}", name, index < long)
        for index in range(jobs)
        for name in ("loss", "tokens_per_second")
    ]
    async with engine.begin() as connection:
        for table, each in found.items():
            for start in range(0, len(each), 1000):
                await connection.execute(insert(table), each[start : start + 1000])
        named = [{"id": i, "job_uid": u, "name": n} for i, u, n, _ in sizes]
        await connection.execute(insert(t.series), named)
    for is_long, steps in ((True, LONG_STEPS), (False, rest)):
        ids = sorted(i for i, _, _, which in sizes if which is is_long)
        for start in range(0, len(ids), 2000):
            some = ",".join(map(str, ids[start : start + 2000]))
            statement = (
                f"WITH RECURSIVE n(x) AS (SELECT 0 UNION ALL SELECT x + 1 FROM n WHERE x < {steps - 1}) "
                "INSERT INTO points (series_id, step, time, value) SELECT s.id, n.x, 1.7e9 + n.x, "
                f"5.0 / (1 + n.x * 0.01) FROM series s CROSS JOIN n WHERE s.id IN ({some}) ORDER BY 1, 2"
            )
            async with engine.begin() as connection:
                await connection.execute(text(statement))
    if engine.dialect.name == "postgresql":
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text("ANALYZE"))
    async with engine.connect() as connection:
        return (await connection.execute(text("SELECT count(*) FROM points"))).scalar_one()


def cluster():
    """Live jobs on nodes; their names are not those of history, so that nothing is written."""
    kube = RightsKube()
    for index in range(NODES):
        kube.put("nodes", fake_kube.node(f"node-{index:03}"))
    for index in range(LIVE):
        namespace = NAMESPACES[index % len(NAMESPACES)]
        raw = fake_kube.training_job(
            f"live-{index:04}", namespace=namespace, queue=f"queue-{index % 50}"
        )
        running = {"step": index, "totalSteps": LIVE, "loss": index / LIVE, "tokensPerSecond": 1e5}
        status = {"phase": "Running" if index % 3 else "Pending", "progress": running,
                  "placement": {"domain": "rack-1", "nodes": ["node-001", "node-002"]},
                  "pendingReason": "needs 8 GPUs in a rack, 6 are free" if not index % 3 else None}  # fmt: skip
        kube.put("trainingjobs.drakkar.dev", {**raw, "status": status})
    return kube


PATHS = {
    "live jobs": "/api/v1/jobs",
    "live jobs, by loss": "/api/v1/jobs?sort=loss&order=asc&offset=2000",
    "live jobs, search": "/api/v1/jobs?search=77",
    "overview": "/api/v1/overview",
    "topology": "/api/v1/topology",
    "history": "/api/v1/history/jobs",
    "history, page 800": "/api/v1/history/jobs?offset=40000",
    "history, by loss": "/api/v1/history/jobs?sort=loss&order=asc",
    "history, failed ones": "/api/v1/history/jobs?phase=Failed",
    "history, of a user": "/api/v1/history/jobs?user=user-77",
    "history, of a queue": "/api/v1/history/jobs?queue=queue-7",
    "history, search": "/api/v1/history/jobs?search=4711",
    "history, one namespace": "/api/v1/history/jobs?namespace=team-007",
    "one job": "/api/v1/history/jobs/team-001/job-000001",
    "20,000 points as 500": "/api/v1/history/jobs/team-001/job-000001/metrics/loss",
    "points of a short job": "/api/v1/history/jobs/team-001/job-{last}/metrics/loss",
    "usage, 30 days": "/api/v1/usage",
    "usage by user, a year": "/api/v1/usage?by=user&start={year}",
    "usage by all, a year": "/api/v1/usage?by=user&by=queue&by=namespace&start={year}",
    "page Overview": "/",
    "page Jobs": "/jobs",
    "page History": "/history",
    "page of a job": "/jobs/team-001/job-000001",
    "page Compare, 4 jobs": "/compare?job=team-001/job-000001&job=team-002/job-000002"
    "&job=team-003/job-000003&job=team-004/job-000004",
    "page Nodes": "/nodes",
    "page Usage": "/usage",
}


@contextlib.contextmanager
def server(folder, database, port):
    """(URL, process) of a server for the fake cluster."""
    config = folder / "kubeconfig"
    config.write_text(yaml.safe_dump(
        {"apiVersion": "v1", "kind": "Config", "current-context": "x",
         "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
         "users": [{"name": "u", "user": {}}],
         "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]}
    ))  # fmt: skip
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        own = probe.getsockname()[1]
    command = [sys.executable, "-m", "drakkar_server", "--host", "127.0.0.1", "--port", str(own),
               "--kubeconfig", str(config), "--insecure-cookies", "1", "--database", database,
               "--requests-per-second", "10000", "--log-level", "warning"]  # fmt: skip
    process = subprocess.Popen(command)
    try:
        yield f"http://127.0.0.1:{own}", process
    finally:
        process.terminate()
        process.wait(30)


def resident(process):
    """MiB of memory of a process."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


async def ask(url, process, jobs, runs):
    """(median, p95) in milliseconds by address, and memory before and after."""
    found = {}
    fill_in = {"last": f"{(jobs - 1) // 200 * 200 - 199:06}", "year": "2026-01-01T00:00:00Z"}
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get("/readyz")).status_code == 200:
                    break
            assert process.poll() is None
            await asyncio.sleep(0.2)
        await asyncio.sleep(8)
        before = resident(process)
        admin = {"Authorization": f"Bearer {ADMIN}"}
        for path, least in (("jobs", LIVE), ("history/jobs", jobs)):
            total = (await client.get(f"/api/v1/{path}", headers=admin)).json()["total"]
            assert total >= least, (path, total)
        await client.post("/login", data={"token": ADMIN})
        for who, token in (("", ADMIN), (", of one namespace", ANN)):
            for name, path in PATHS.items():
                if who and name not in ("history", "history, search", "usage, 30 days"):
                    continue
                headers = {"Authorization": f"Bearer {token}"}
                taken = []
                for _ in range(runs):
                    began = time.perf_counter()
                    answer = await client.get(path.format(**fill_in), headers=headers)
                    taken.append((time.perf_counter() - began) * 1000)
                    assert answer.status_code == 200, (path, answer.text[:300])
                found[name + who] = statistics.median(taken), statistics.quantiles(taken, n=20)[-1]
        return found, before, resident(process)


async def measure(kind, url, jobs, points, runs):
    engine = open_engine(url)
    began = time.perf_counter()
    async with engine.connect() as connection:
        there = await connection.run_sync(lambda sync: inspect(sync).has_table("points"))
    count = points if there else await fill(engine, jobs, points)
    await engine.dispose()
    seconds = time.perf_counter() - began
    print(f"{kind}: {jobs:,} jobs, {count:,} points, filled in {seconds:.0f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        async with GuardedServer(cluster()) as api:
            with server(Path(folder), url, api.port) as (own, process):
                return await ask(own, process, jobs, runs)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("databases", nargs="*", default=["sqlite", "postgresql"])
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument("--points", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--keep", type=Path, help="folder of an SQLite database, filled if empty")
    options = parser.parse_args()
    results = {}
    for kind in options.databases:
        with contextlib.ExitStack() as stack:
            if kind == "sqlite":
                folder = options.keep or stack.enter_context(tempfile.TemporaryDirectory())
                url = f"sqlite+aiosqlite:///{folder}/history.db"
            else:
                url, _ = stack.enter_context(postgres())
            results[kind] = asyncio.run(
                measure(kind, url, options.jobs, options.points, options.runs)
            )
    print("|  | " + " | ".join(results) + " |")
    print("| --- |" + " --- |" * len(results))
    for name in next(iter(results.values()))[0]:
        cells = [f"{found[name][0]:.0f} / {found[name][1]:.0f}" for found, _, _ in results.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")
    memory = [f"{before:.0f} / {after:.0f}" for _, before, after in results.values()]
    print("| MiB of the server before / after | " + " | ".join(memory) + " |")
    print(json.dumps({"sqlite": sqlite3.sqlite_version}))


if __name__ == "__main__":
    main()
