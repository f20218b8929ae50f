"""What it brings to route by what replicas have seen: prompts with shared beginnings, four replicas.

    python tests/bench/route.py                  all three policies in turns, RUNS times
    python tests/bench/route.py --policy scored  one of them
    python tests/bench/route.py --overhead       what the router costs, before engines that do nothing

Each group of prompts begins with the same PREFIX tokens. All groups together fit into the caches of
the four replicas, but not into that of one. Clients are closed-loop: CLIENTS at a time, in an order
drawn once. All on SmolLM2-135M-Instruct with a thread per replica; each run has prompts of its own.
"""

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import aiohttp

sys.path.insert(0, str(Path(__file__).parents[1]))

from drakkar.routing import Endpoint, Policy, RouteTable
from support.fake_engine import FakeEngine, world
from support.serving import RouterProcess, Server
from support.smollm import model as smollm

REPLICAS, GROUPS, PREFIX, SUFFIX, OUTPUT = 4, 8, 768, 32, 16
CACHE_GIB = 0.075
CLIENTS = 8
POLICIES = ("round-robin", "least-requests", "scored")


def ids(seed, length):
    chance = random.Random(seed)
    return [chance.randrange(100, 40_000) for _ in range(length)]


async def ask(session, url, prompt):
    """Seconds to the first token, tokens generated, prompt tokens found in a cache."""
    body = {"prompt": prompt, "max_tokens": OUTPUT, "temperature": 0, "ignore_eos": True,
            "stream": True, "stream_options": {"include_usage": True}}  # fmt: skip
    began, first, usage = time.perf_counter(), None, None
    async with session.post(f"{url}/v1/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.content:
            if line.startswith(b"data: {"):
                first = first or time.perf_counter()
                usage = json.loads(line[6:]).get("usage") or usage
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return first - began, usage["completion_tokens"], cached


async def load(url, salt, requests):
    order = [number % GROUPS for number in range(requests)]
    random.Random(0).shuffle(order)
    gate = asyncio.Semaphore(CLIENTS)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(280)) as session:

        async def one(number, group):
            async with gate:
                prompt = ids(f"{salt} {group}", PREFIX) + ids(f"{salt} n{number}", SUFFIX)
                return await ask(session, url, prompt)

        began = time.perf_counter()
        found = await asyncio.gather(*(one(*pair) for pair in enumerate(order)))
        took = time.perf_counter() - began
    firsts, counts, cached = zip(*found, strict=True)
    return {
        "prompt tokens/s": requests * (PREFIX + SUFFIX) / took,
        "tokens/s": sum(counts) / took,
        "TTFT p50": statistics.median(firsts),
        "TTFT p90": statistics.quantiles(firsts, n=10)[-1],
        "cached": sum(cached) / (requests * (PREFIX + SUFFIX)),
    }


async def overhead(requests=2000, prompt=4096):
    """CPU per request and per event of a stream that passes the router, which is in this process."""
    async with world() as here, FakeEngine() as one, FakeEngine() as other:
        await here.table(one, other)
        for stream in (False, True):
            body = json.dumps({"prompt": "x" * prompt, "stream": stream}).encode()
            costs = {}
            for name, url in (("direct", one.url), ("routed", here.url)):
                gate = asyncio.Semaphore(16)

                async def ask(url=url, gate=gate, body=body):
                    async with gate, here.session.post(f"{url}/v1/completions", data=body) as found:
                        await found.read()

                began = time.process_time()
                await asyncio.gather(*(ask() for _ in range(requests)))
                costs[name] = (time.process_time() - began) / requests * 1000
            cost = costs["routed"] - costs["direct"]
            print(f"stream {stream}: {cost:.2f} ms of CPU per request beyond {costs['direct']:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", choices=POLICIES, action="append")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--requests", type=int, default=96)
    parser.add_argument("--overhead", action="store_true")
    found = parser.parse_args()
    if found.overhead:
        asyncio.run(overhead())
        return
    arguments = ("--dtype", "bfloat16", "--threads", 1, "--cache-gib", CACHE_GIB)
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(smollm(), *arguments)) for _ in range(REPLICAS)]
        router = stack.enter_context(RouterProcess("--uid", "bench")).started()
        for server in servers:
            server.started()
        endpoints = [
            Endpoint(name=f"r{number}", url=server.url, revision="1", ready=True)
            for number, server in enumerate(servers)
        ]
        speeds = {}
        for version in range(found.runs):
            for policy in found.policy or POLICIES:
                router.exchange(
                    RouteTable(
                        service="bench",
                        uid="bench",
                        version=version,
                        endpoints=endpoints,
                        policy=Policy(kind=policy),
                    )
                )
                figures = asyncio.run(load(router.url, f"{policy} {version}", found.requests))
                speeds.setdefault(policy, []).append(figures)
                print(version, policy, {k: round(v, 3) for k, v in figures.items()}, flush=True)
        for policy, runs in speeds.items():
            medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
            print("median", policy, {name: round(value, 3) for name, value in medians.items()})
        print(subprocess.run(["uptime"], capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
