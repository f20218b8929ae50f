"""vLLM offline, in its own environment: reads lines ``BATCH PROMPT OUTPUT``, writes tokens.

VLLM_PYTHON vllm_worker.py MODEL THREADS eager|compiled
"""

import os
import sys

model, threads, mode = sys.argv[1:]
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", f"0-{int(threads) - 1}")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
# What it prints by itself must not be taken for an answer.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

from vllm import LLM, SamplingParams  # noqa: E402

engine = LLM(
    model=model, dtype="bfloat16", enforce_eager=mode == "eager", max_model_len=8192,
    enable_prefix_caching=False,
)  # fmt: skip
print("ready", file=answers, flush=True)
for line in sys.stdin:
    batch, length, output = map(int, line.split())
    prompts = [
        {"prompt_token_ids": [(1000 + n * 977 + i * 31) % 40_000 + 100 for i in range(length)]}
        for n in range(batch)
    ]
    found = engine.generate(
        prompts,
        SamplingParams(temperature=0, max_tokens=output, ignore_eos=True, detokenize=False),
        use_tqdm=False,
    )
    print(sum(len(one.outputs[0].token_ids) for one in found), file=answers, flush=True)
