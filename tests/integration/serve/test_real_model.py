"""SmolLM2-135M-Instruct: the same text as transformers in float32, however it is served."""

import pytest
import torch
from tokenizers import Tokenizer

from drakkar_workers.serve.engine.build import EngineSettings, build
from support.engines import request, run
from support.smollm import model as smollm

PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):\n    ",
    "<|im_start|>user\nName three colours.<|im_end|>\n<|im_start|>assistant\n",
    "Once upon a time, in a village by the sea, there lived",
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,",
    "To be, or not to be, that is the question: " * 6,
]
TOKENS = 24
LOGPROB_TOLERANCE = 1e-3
"""In nats, float32 against float32: sums in another order."""
BF16_TOLERANCE = 0.15


@pytest.fixture(scope="module")
def ids():
    tokenizer = Tokenizer.from_file(str(smollm() / "tokenizer.json"))
    return [tokenizer.encode(prompt).ids for prompt in PROMPTS]


@pytest.fixture(scope="module")
def expected(ids):
    """Greedy tokens and their log-probabilities, by transformers in float32.

    One forward pass over a prompt and what the engine made of it: if each of those tokens is the
    likeliest after all before it, they are what transformers would have chosen one by one.
    """
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(smollm(), dtype=torch.float32).eval()
    answers = run(engine(), *requests(ids))
    tokens, logprobs = [], []
    for i, prompt in enumerate(ids):
        found = answers[str(i)].tokens
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + found])).logits[0, len(prompt) - 1 : -1]
        each = torch.log_softmax(logits.float(), dim=-1)
        tokens.append(each.argmax(dim=-1).tolist())
        logprobs.append(each[range(TOKENS), tokens[-1]].tolist())
    return tokens, logprobs


def engine(**settings):
    fields = {"model": str(smollm()), "dtype": "float32", "cache_gib": 0.25, "threads": 1}
    return build(EngineSettings(**{**fields, **settings}))


def requests(ids, **sampling):
    return [
        request(str(i), prompt, max_tokens=TOKENS, logprobs=0, **sampling)
        for i, prompt in enumerate(ids)
    ]


BLOCK_BYTES = 16 * 2 * 30 * 3 * 64 * 4
VARIANTS = {
    "plain": {},
    "no prefix cache": {"prefix_caching": False},
    "chunks of 7": {"max_batch_tokens": 7},
    "speculation": {"speculative_tokens": 4},
    # 14 blocks for prompts and answers of 20 in all.
    "preemption": {"cache_gib": 14 * BLOCK_BYTES / 2**30},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_tokens_equal_those_of_transformers(variant, ids, expected):
    tokens, logprobs = expected
    one = engine(**VARIANTS[variant])
    together = run(one, *requests(ids))
    for i, answer in enumerate(together.values()):
        assert answer.tokens == tokens[i]
        found = [entry.value for entry in answer.logprobs]
        assert found == pytest.approx(logprobs[i], abs=LOGPROB_TOLERANCE)
    alone = requests(ids)[2]
    assert run(one, alone)["2"].tokens == tokens[2]
    if variant == "preemption":
        assert one.stats().preemptions > 0
    if variant == "speculation":
        assert one.stats().accepted > 0


def test_bf16_is_near_and_the_same_in_any_batch(ids, expected):
    tokens, logprobs = expected
    one = engine(dtype="bfloat16", backend="native")
    together = run(one, *requests(ids))
    for i, prompt in enumerate(ids):
        alone = run(one, requests(ids)[i])[str(i)]
        assert alone.tokens == together[str(i)].tokens
        assert alone.logprobs == together[str(i)].logprobs
        same = 0
        while same < TOKENS and alone.tokens[same] == tokens[i][same]:
            same += 1
        assert same > 0, prompt
        found = [entry.value for entry in alone.logprobs[:same]]
        assert found == pytest.approx(logprobs[i][:same], abs=BF16_TOLERANCE)
