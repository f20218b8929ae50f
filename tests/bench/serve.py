"""Tokens per second and waiting times of the serving engine, against transformers.

    python tests/bench/serve.py offline     same weights, dtype and threads, in turns
    python tests/bench/serve.py http        through the server: TTFT and TPOT by concurrency
    python tests/bench/serve.py poisson     the same with requests that arrive at random
    python tests/bench/serve.py prefix      a long prompt, and again
    python tests/bench/serve.py start       from the start of the process to the first token, with the
                                            weights packed anew or mapped (--packed)

All on SmolLM2-135M-Instruct, fetched at the first run. Medians of RUNS. --vllm PYTHON measures vLLM's
CPU build, installed in an environment of its own; offline in turns with ours alone.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import aiohttp
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from drakkar_workers.serve.engine.build import EngineSettings, build, cores
from support.engines import request
from support.serving import Server
from support.smollm import model as smollm

BATCHES = (1, 4, 16)
PROMPT, OUTPUT = 32, 64
HTTP_PROMPT = 256
LONG_PROMPT = 4008


def prompt_of(length, number):
    """Token ids that no other prompt begins with."""
    return [(1000 + number * 977 + i * 31) % 40_000 + 100 for i in range(length)]


class Ours:
    def __init__(self, dtype, threads, quantization="none"):
        settings = EngineSettings(
            model=str(smollm()), dtype=dtype, threads=threads, quantization=quantization,
            prefix_caching=False, cache_gib=0.5,
        )  # fmt: skip
        self.engine = build(settings)

    def generate(self, batch):
        for i in range(batch):
            self.engine.add(request(str(i), prompt_of(PROMPT, i), max_tokens=OUTPUT))
        count = 0
        while not self.engine.idle:
            count += sum(len(output.tokens) for output in self.engine.step())
        return count


class Transformers:
    def __init__(self, dtype, threads):
        from transformers import LlamaForCausalLM

        torch.set_num_threads(threads)
        self.model = LlamaForCausalLM.from_pretrained(smollm(), dtype=getattr(torch, dtype)).eval()

    def generate(self, batch):
        ids = torch.tensor([prompt_of(PROMPT, i) for i in range(batch)])
        out = self.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=OUTPUT, do_sample=False,
            eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        return (out.shape[1] - PROMPT) * batch


class Vllm:
    """vLLM's CPU build in another environment."""

    def __init__(self, python, threads, mode):
        command = [python, "-P", str(Path(__file__).with_name("vllm_worker.py"))]
        self.process = subprocess.Popen(
            [*command, str(smollm()), str(threads), mode], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert self.process.stdout.readline() == "ready\n", "vLLM did not start"

    def generate(self, batch):
        self.process.stdin.write(f"{batch} {PROMPT} {OUTPUT}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


def offline(runs, threads, batches, vllm=None):
    print(f"{PROMPT} tokens in, {OUTPUT} out, {threads} threads, tokens/s, medians of {runs}")
    contenders = {"drakkar bf16": Ours("bfloat16", threads)}
    if vllm:
        contenders["vllm bf16 eager"] = Vllm(vllm, threads, "eager")
    else:
        contenders |= {
            "transformers bf16": Transformers("bfloat16", threads),
            "drakkar fp32": Ours("float32", threads),
            "transformers fp32": Transformers("float32", threads),
            "drakkar int8": Ours("bfloat16", threads, "int8"),
            "drakkar int4": Ours("bfloat16", threads, "int4"),
        }
    for batch in batches:
        speeds = {name: [] for name in contenders}
        for _ in range(runs):
            for name, one in contenders.items():
                began = time.perf_counter()
                count = one.generate(batch)
                speeds[name].append(count / (time.perf_counter() - began))
        for name, found in speeds.items():
            median, best = statistics.median(found), max(found)
            print(f"batch {batch:2}  {name:18} {median:7.1f}   best {best:7.1f}", flush=True)


async def ask(session, url, prompt, output):
    """Seconds to the first token, and between tokens."""
    body = {"prompt": prompt, "max_tokens": output, "temperature": 0, "ignore_eos": True,
            "stream": True, "stream_options": {"include_usage": True}}  # fmt: skip
    began = time.perf_counter()
    first = last = None
    count = 0
    async with session.post(f"{url}/v1/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.content:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if event["choices"]:
                last = time.perf_counter()
                first = first or last
            else:
                count = event["usage"]["completion_tokens"]
    return first - began, (last - first) / max(1, count - 1), count


async def load(url, concurrency, requests, salt):
    gate = asyncio.Semaphore(concurrency)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(600)) as session:

        async def one(number):
            async with gate:
                return await ask(session, url, prompt_of(HTTP_PROMPT, salt + number), OUTPUT)

        began = time.perf_counter()
        found = await asyncio.gather(*(one(number) for number in range(requests)))
        took = time.perf_counter() - began
    return _figures(found, took)


async def arrivals(url, rate, requests, salt):
    """Requests that come at ``rate`` per second on average, whatever is under way."""
    chance = random.Random(salt)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(600)) as session:
        began, tasks = time.perf_counter(), []
        for number in range(requests):
            await asyncio.sleep(chance.expovariate(rate))
            prompt = prompt_of(HTTP_PROMPT, salt + number)
            tasks.append(asyncio.create_task(ask(session, url, prompt, OUTPUT)))
        found = await asyncio.gather(*tasks)
        took = time.perf_counter() - began
    return _figures(found, took)


def _figures(found, took):
    firsts, betweens, counts = zip(*found, strict=True)
    p90 = statistics.quantiles(firsts, n=10)[-1] if len(firsts) > 1 else firsts[0]
    return sum(counts) / took, statistics.median(firsts), p90, statistics.median(betweens)


def _tell(name, found):
    speed, first, p90, between = (statistics.median(column) for column in zip(*found, strict=True))
    print(
        f"{name}  {speed:6.1f} tokens/s  TTFT {first * 1000:6.0f} ms, p90 {p90 * 1000:6.0f} ms  "
        f"TPOT {between * 1000:5.1f} ms",
        flush=True,
    )


class VllmServer:
    """vLLM's own server, in another environment."""

    def __init__(self, python, threads):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        environment = {
            **os.environ,
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}",
        }
        command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(smollm())]
        command += ["--dtype", "bfloat16", "--enforce-eager", "--max-model-len", "8192"]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Its engine is a process of its own in the same group.
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def started(self):
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return self
            except OSError:
                time.sleep(0.2)
        raise SystemExit("vLLM did not start")


def _server(threads, vllm, *options):
    if vllm:
        return VllmServer(vllm, threads)
    return Server(smollm(), "--dtype", "bfloat16", "--threads", threads, *options)


def over_http(runs, threads, vllm=None):
    print(f"{HTTP_PROMPT} tokens in, {OUTPUT} out, server and clients on the same cores")
    with _server(threads, vllm) as server:
        server.started()
        asyncio.run(load(server.url, 1, 2, 10**6))
        for concurrency in (1, 4, 8, 16):
            salts = [1000 * i + concurrency * 50 for i in range(runs)]
            found = [
                asyncio.run(load(server.url, concurrency, max(6, concurrency * 2), salt))
                for salt in salts
            ]
            _tell(f"concurrency {concurrency:2}", found)


def poisson(runs, threads, vllm=None):
    print(f"{HTTP_PROMPT} tokens in, {OUTPUT} out, arrivals at random")
    with _server(threads, vllm) as server:
        server.started()
        asyncio.run(load(server.url, 1, 2, 10**6))
        for rate in (0.5, 1.0, 2.0):
            found = [
                asyncio.run(arrivals(server.url, rate, 20, 1000 * i + int(rate * 100)))
                for i in range(runs)
            ]
            _tell(f"{rate:3} requests/s", found)


def start(runs, threads, vllm=None):
    async def first(url):
        async with aiohttp.ClientSession() as session:
            await ask(session, url, prompt_of(PROMPT, 1), 1)

    def once(options):
        began = time.perf_counter()
        with _server(threads, vllm, *options) as server:
            server.started()
            ready = time.perf_counter() - began
            asyncio.run(first(server.url))
            return ready, time.perf_counter() - began

    with tempfile.TemporaryDirectory() as folder:
        contenders = {"vllm": ()} if vllm else {"packed anew": (), "mapped": ("--packed", folder)}
        for options in contenders.values():
            once(options)
        found = {name: [] for name in contenders}
        for _ in range(runs):
            for name, options in contenders.items():
                found[name].append(once(options))
    for name, times in found.items():
        ready, token = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{name:12} start to ready {ready:.1f} s, to the first token {token:.1f} s")


def prefix(runs, threads, vllm=None):
    print(f"a prompt of {LONG_PROMPT} tokens, and the same again; seconds to the first token")
    with _server(threads, vllm) as server:
        server.started()

        async def twice(number):
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(600)) as session:
                prompt = prompt_of(LONG_PROMPT, number)
                return [(await ask(session, server.url, prompt, 2))[0] for _ in range(2)]

        found = [asyncio.run(twice(number)) for number in range(runs)]
    cold, warm = (statistics.median(column) for column in zip(*found, strict=True))
    print(f"cold {cold:.3f}  warm {warm:.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("offline", "http", "poisson", "prefix", "start"))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--batch", type=int, action="append", help="offline: only these")
    parser.add_argument("--vllm", help="python of an environment with vLLM's CPU build")
    found = parser.parse_args()
    if found.what == "offline":
        offline(found.runs, found.threads, found.batch or BATCHES, found.vllm)
    else:
        {"http": over_http, "poisson": poisson, "prefix": prefix, "start": start}[found.what](
            found.runs, found.threads, found.vllm
        )
    print(f"load of the last minute: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
