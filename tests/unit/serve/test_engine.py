"""The engine over a small model: what a request gets does not depend on who else is there."""

import json
import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from drakkar_workers.errors import ConfigError
from drakkar_workers.serve.engine.build import EngineSettings, build
from drakkar_workers.serve.engine.request import Grammar
from support.engines import request, run
from support.tiny_models import KINDS, save_adapter, save_tiny

PROMPTS = [list(b"the quick brown fox"), list(b"abc" * 30), list(b"x"), list(range(40))]


def requests(**sampling):
    return [request(f"r{i}", prompt, **sampling) for i, prompt in enumerate(PROMPTS)]


def alone(engine, **sampling):
    return {one.id: run(engine, one)[one.id].tokens for one in requests(**sampling)}


def tokens_of(answers):
    return {name: answer.tokens for name, answer in answers.items()}


@pytest.fixture(scope="module")
def expected(tiny):
    """Greedy continuations by transformers in float32."""
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(tiny).eval()
    found = {}
    for i, prompt in enumerate(PROMPTS):
        ids = torch.tensor([prompt])
        for _ in range(40):
            with torch.no_grad():
                ids = torch.cat((ids, model(ids).logits[:, -1:].argmax(-1)), dim=1)
        found[f"r{i}"] = ids[0, len(prompt) :].tolist()
    return found


VARIANTS = {
    "plain": {},
    "torch backend": {"backend": "torch"},
    "no prefix cache": {"prefix_caching": False},
    "small chunks": {"max_batch_tokens": 5},
    "speculation": {"speculative_tokens": 4},
    # 16 blocks of 16 tokens for up to 130 tokens each.
    "preemption": {"cache_gib": 16 * 16 * 2 * 2 * 2 * 16 * 4 / 2**30},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_log_probabilities_of_prompts_equal_those_of_transformers(variant, engine_of, tiny):
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(tiny).eval()
    engine = engine_of(**VARIANTS[variant])
    run(engine, *requests(max_tokens=2))  # The cache has all prompts, which must not matter.
    answers = run(engine, *requests(max_tokens=40, prompt_logprobs=2))
    for i, prompt in enumerate(PROMPTS):
        with torch.no_grad():
            expected = model(torch.tensor([prompt])).logits[0].log_softmax(-1)
        found = answers[f"r{i}"].prompt_logprobs
        assert len(found) == len(prompt) - 1
        for at, one in enumerate(found):
            assert one.value == pytest.approx(expected[at, prompt[at + 1]].item(), abs=2e-3)
            assert [value for _, value in one.top] == pytest.approx(
                expected[at].topk(2).values.tolist(), abs=2e-3
            )


@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_tokens_equal_those_of_transformers(variant, engine_of, expected):
    engine = engine_of(**VARIANTS[variant])
    assert alone(engine, max_tokens=40) == expected
    answers = run(engine, *requests(max_tokens=40))
    assert tokens_of(answers) == expected
    again = run(engine, *requests(max_tokens=40))
    assert tokens_of(again) == expected
    stats = engine.stats()
    assert (stats.prefix_hits > 0) == (variant != "no prefix cache")
    assert (stats.accepted > 0) == (variant == "speculation")
    assert (stats.running, stats.waiting, stats.cache_usage) == (0, 0, 0.0)


def test_preemption_happens_and_changes_nothing(engine_of):
    small = engine_of(cache_gib=12 * 16 * 2 * 2 * 2 * 16 * 4 / 2**30)
    many = [request(f"r{i}", PROMPTS[0], max_tokens=60, arrival=i) for i in range(4)]
    answers = run(small, *many)
    assert small.stats().preemptions > 0
    assert len({tuple(answer.tokens) for answer in answers.values()}) == 1


@pytest.mark.parametrize("variant", ["plain", "speculation", "small chunks", "preemption"])
def test_a_seed_gives_the_same_text_in_any_company(variant, engine_of):
    settings = {"temperature": 0.9, "top_p": 0.95, "max_tokens": 30}
    reference = run(engine_of(), request("r0", PROMPTS[1], seed=7, **settings))["r0"].tokens
    engine = engine_of(**VARIANTS[variant])
    company = [request(f"x{i}", PROMPTS[i % 4], seed=i, **settings) for i in range(6)]
    answers = run(engine, *company[:3], request("r0", PROMPTS[1], seed=7, **settings), *company[3:])
    assert answers["r0"].tokens == reference
    assert answers["x1"].tokens != reference


def test_log_probabilities_are_the_models_own(engine_of):
    engine = engine_of()
    both = [
        request("greedy", PROMPTS[0], logprobs=5),
        request("biased", PROMPTS[0], logprobs=0, logit_bias={65: 100.0}, max_tokens=1),
    ]
    answers = run(engine, *both)
    for token, logprob in zip(answers["greedy"].tokens, answers["greedy"].logprobs, strict=True):
        assert logprob.top[0] == (token, pytest.approx(logprob.value))
        assert [value for _id, value in logprob.top] == sorted(
            (value for _id, value in logprob.top), reverse=True
        )
        assert sum(math.exp(value) for _id, value in logprob.top) <= 1.0001
    assert answers["biased"].tokens == [65]
    assert answers["biased"].logprobs[0].value < answers["greedy"].logprobs[0].value


def test_stops(engine_of):
    engine = engine_of()
    free = run(engine, request("r", PROMPTS[0]))["r"]
    assert (free.finish, len(free.tokens)) == ("length", 12)
    stop = free.tokens[4]
    early = free.tokens.index(stop)
    halted = run(engine, request("r", PROMPTS[0], stop_token_ids=(stop,)))["r"]
    assert (halted.finish, halted.stopped_by) == ("stop", stop)
    assert halted.tokens == free.tokens[: early + 1]
    later = run(engine, request("r", PROMPTS[0], stop_token_ids=(stop,), min_tokens=8))["r"]
    assert len(later.tokens) >= 8
    assert stop not in later.tokens[:8]


def test_the_end_token_ends_unless_it_is_ignored(engine_of):
    engine = engine_of()
    ended = run(engine, request("r", b"a", ignore_eos=False, logit_bias={256: 1000.0}))["r"]
    assert (ended.finish, ended.stopped_by, ended.tokens) == ("stop", 256, [256])
    ignored = run(engine, request("r", b"a", ignore_eos=True, logit_bias={256: 1000.0}))["r"]
    assert (ignored.finish, len(ignored.tokens)) == ("length", 12)


def test_the_same_prompt_comes_from_the_cache(engine_of):
    engine = engine_of()
    prompt = PROMPTS[1]
    first, second = (run(engine, request("r", prompt))["r"] for _ in range(2))
    assert (first.cached, second.cached) == (0, len(prompt) // 16 * 16)
    salted = run(engine, request("r", prompt, salt="other"))["r"]
    assert salted.cached == 0
    assert first.tokens == second.tokens == salted.tokens


def test_an_embedding_is_the_mean_of_the_last_hidden_states(engine_of, tiny):
    from transformers import LlamaModel

    model = LlamaModel.from_pretrained(tiny).eval()
    engine = engine_of(max_batch_tokens=16)
    answers = run(engine, *(request(f"r{i}", p, embed=True) for i, p in enumerate(PROMPTS)))
    for i, prompt in enumerate(PROMPTS):
        with torch.no_grad():
            mean = model(torch.tensor([prompt])).last_hidden_state[0].mean(dim=0)
        assert torch.allclose(
            torch.tensor(answers[f"r{i}"].embedding), mean / mean.norm(), atol=1e-4
        )


SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "ok": {"type": "boolean"}},
    "required": ["n", "ok"],
    "additionalProperties": False,
}


def test_structured_output_beside_others(engine_of):
    engine = engine_of()
    grammar = Grammar("json_schema", json.dumps(SCHEMA))
    structured = [
        request(f"s{seed}", b"go", grammar=grammar, max_tokens=80, temperature=1.0, seed=seed,
                ignore_eos=False)
        for seed in range(4)
    ]  # fmt: skip
    choice = request("c", b"go", grammar=Grammar("choice", '["yes", "no"]'), ignore_eos=False)
    free = run(engine, request("f", PROMPTS[0]))["f"].tokens
    answers = run(engine, *structured, choice, request("f", PROMPTS[0]))
    assert answers["f"].tokens == free
    text = bytes(token for token in answers["c"].tokens if token < 256)
    assert text in (b"yes", b"no")
    ended = [answers[f"s{seed}"] for seed in range(4) if answers[f"s{seed}"].finish == "stop"]
    assert ended
    for answer in ended:
        value = json.loads(bytes(token for token in answer.tokens if token < 256))
        assert set(value) == {"n", "ok"}


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar("json_schema", '{"type": "nonsense"}'),
        Grammar("json_schema", "not json"),
        Grammar("regex", "(unclosed"),
        Grammar("lark", "start: nowhere"),
        Grammar("regex", "(a{1000}){1000}{1000}"),
    ],
    ids=lambda g: g.text[:20],
)
def test_a_bad_grammar_fails_its_own_request_alone(grammar, engine_of):
    engine = engine_of()
    answers = run(engine, request("bad", b"go", grammar=grammar), request("good", b"go"))
    assert answers["bad"].finish == "error"
    assert "grammar" in answers["bad"].error
    assert len(answers["good"].tokens) == 12


def test_aborted_requests_leave_nothing(engine_of):
    engine = engine_of()
    grammar = Grammar("json_object", "")
    for one in (*requests(max_tokens=100), request("g", b"go", grammar=grammar)):
        engine.add(one)
    engine.step()
    for name in ("r2", "g", "r0", "r1", "r3", "unknown"):
        engine.abort(name)
    assert engine.idle
    assert engine.step() == []
    engine.scheduler.check()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (request("r", [257]), "prompt token is not from 0 to 256"),
        (request("r", b"a", max_tokens=512), "513 tokens are more than the model's 512"),
        (request("r", b"a", logit_bias={300: 1.0}), "logit_bias"),
        (request("r", b"a", adapter="none"), "adapter none is not loaded"),
        (request("r", b""), "no tokens"),
    ],
)
def test_requests_that_can_not_be_served(bad, message, engine_of):
    engine = engine_of()
    with pytest.raises(ValueError, match=message):
        engine.add(bad)
    assert engine.idle


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_an_adapter_equals_merged_weights_beside_requests_without_it(
    backend, engine_of, tiny, tmp_path
):
    from transformers import LlamaForCausalLM

    tensors = save_adapter(tmp_path / "lora")
    model = LlamaForCausalLM.from_pretrained(tiny)
    state = model.state_dict()
    for name, a in tensors.items():
        if ".lora_A." in name:
            key = name.removeprefix("base_model.model.").replace("lora_A.weight", "weight")
            state[key] += tensors[name.replace("lora_A", "lora_B")] @ a * 2.0
    model.save_pretrained(tmp_path / "merged")
    (tmp_path / "merged" / "tokenizer.json").write_text((tiny / "tokenizer.json").read_text())
    merged = tokens_of(run(engine_of(model=str(tmp_path / "merged")), *requests()))
    engine = engine_of(backend=backend)
    base = alone(engine)
    engine.load_adapter("poet", tmp_path / "lora")
    mixed = [request(f"a{i}", p, adapter="poet") for i, p in enumerate(PROMPTS)]
    answers = tokens_of(run(engine, *mixed, *requests()))
    assert {name.replace("a", "r"): t for name, t in answers.items() if name[0] == "a"} == merged
    assert {name: t for name, t in answers.items() if name[0] == "r"} == base
    assert merged != base


def test_adapters_come_and_go(engine_of, tmp_path):
    engine = engine_of()
    save_adapter(tmp_path / "lora")
    engine.load_adapter("poet", tmp_path / "lora")
    with pytest.raises(ConfigError, match="loaded already"):
        engine.load_adapter("poet", tmp_path / "lora")
    engine.add(request("r", PROMPTS[1], adapter="poet"))
    with pytest.raises(ConfigError, match="serves requests"):
        engine.unload_adapter("poet")
    engine.abort("r")
    run(engine, request("r", PROMPTS[1], adapter="poet"))
    engine.unload_adapter("poet")
    save_adapter(tmp_path / "other", scale=-1.0)
    engine.load_adapter("poet", tmp_path / "other")
    assert run(engine, request("r", PROMPTS[1], adapter="poet"))["r"].cached == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 0}, "rank 0"),
        ({"r": 8}, "does not fit the model"),
        ({"r": 4, "use_dora": True}, "use_dora"),
        ({"r": 4, "modules_to_save": ["lm_head"]}, "modules_to_save"),
        (None, "adapter_config.json"),
    ],
)
def test_adapters_that_can_not_be_loaded(settings, message, engine_of, tmp_path):
    save_adapter(tmp_path / "lora")
    config = tmp_path / "lora" / "adapter_config.json"
    config.unlink() if settings is None else config.write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=message):
        engine_of().load_adapter("poet", tmp_path / "lora")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length": 4096}, "the model has 512"),
        ({"cache_gib": 1e-6}, "one block takes"),
        ({"max_length": 512, "cache_gib": 0.00005}, "give it more"),
        ({"quantization": "int8"}, "needs dtype bfloat16"),
    ],
)
def test_settings_that_can_not_work(settings, message, engine_of):
    with pytest.raises(ConfigError, match=message):
        engine_of(**settings)


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_quantised_models_give_the_same_text_in_any_company(quantization, engine_of):
    engine = engine_of(quantization=quantization, dtype="bfloat16")
    assert tokens_of(run(engine, *requests())) == alone(engine)


def test_heads_that_no_kernel_takes_are_served_by_torch(tmp_path, monkeypatch):
    odd = (LlamaConfig, LlamaForCausalLM, {"head_dim": 24})
    monkeypatch.setitem(KINDS, "odd-head", odd)
    save_tiny("odd-head", tmp_path)
    fields = {"model": str(tmp_path), "dtype": "float32", "threads": 1, "cache_gib": 0.002}
    build(EngineSettings(**fields))
    with pytest.raises(ConfigError, match="head width 24"):
        build(EngineSettings(**fields, backend="native"))
