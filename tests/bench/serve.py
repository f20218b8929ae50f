"""Tokens per second and waiting times of the serving engine, against transformers.

    python tests/bench/serve.py offline     same weights, dtype and threads, in turns
    python tests/bench/serve.py http        through the server: TTFT and TPOT by concurrency
    python tests/bench/serve.py prefix      a long prompt, and again

All on SmolLM2-135M-Instruct, fetched at the first run. Medians of RUNS.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
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


def offline(runs, threads, batches):
    print(f"{PROMPT} tokens in, {OUTPUT} out, {threads} threads, tokens/s, medians of {runs}")
    contenders = {
        "drakkar bf16": Ours("bfloat16", threads),
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
    firsts, betweens, counts = zip(*found, strict=True)
    return sum(counts) / took, statistics.median(firsts), statistics.median(betweens)


def over_http(runs, threads):
    print(f"{HTTP_PROMPT} tokens in, {OUTPUT} out, server and clients on the same cores")
    with Server(smollm(), "--dtype", "bfloat16", "--threads", threads) as server:
        began = time.perf_counter()
        server.started()
        print(f"start to ready {time.perf_counter() - began:.1f} s")
        asyncio.run(load(server.url, 1, 2, 10**6))
        for concurrency in (1, 4, 8, 16):
            found = [
                asyncio.run(
                    load(server.url, concurrency, concurrency * 3, 1000 * i + concurrency * 50)
                )
                for i in range(runs)
            ]
            speed, first, between = (
                statistics.median(column) for column in zip(*found, strict=True)
            )
            print(
                f"concurrency {concurrency:2}  {speed:6.1f} tokens/s  TTFT {first * 1000:6.0f} ms  "
                f"TPOT {between * 1000:5.1f} ms",
                flush=True,
            )


def prefix(runs, threads):
    print(f"a prompt of {LONG_PROMPT} tokens, and the same again; seconds to the first token")
    with Server(smollm(), "--dtype", "bfloat16", "--threads", threads) as server:
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
    parser.add_argument("what", choices=("offline", "http", "prefix"))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--batch", type=int, action="append", help="offline: only these")
    found = parser.parse_args()
    if found.what == "offline":
        offline(found.runs, found.threads, found.batch or BATCHES)
    else:
        {"http": over_http, "prefix": prefix}[found.what](found.runs, found.threads)


if __name__ == "__main__":
    main()
