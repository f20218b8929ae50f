"""What clients must not send: a clear refusal in OpenAI's shape, and the engine goes on."""

import json
import threading
from pathlib import Path

import pytest

CHAT, TEXT, VECTOR = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"


def chat(**fields):
    return CHAT, {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1, **fields}


def text(**fields):
    return TEXT, {"prompt": "x", "max_tokens": 1, **fields}


def schema(value):
    return chat(
        response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": value}},
        max_tokens=5,
    )


def nested(depth):
    value = {"type": "string"}
    for _ in range(depth):
        value = {"type": "object", "properties": {"a": value}, "required": ["a"]}
    return value


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}

BAD = {
    "no messages": (CHAT, {}, "messages"),
    "empty messages": (*chat(messages=[]), "messages"),
    "messages of text": (*chat(messages="hello"), "messages"),
    "unknown role": (*chat(messages=[{"role": "king", "content": "x"}]), "messages.0.role"),
    "content of numbers": (*chat(messages=[{"role": "user", "content": 5}]), "messages.0.content"),
    "an image": (*chat(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), "messages.0.content.0.type"),
    "too many messages": (*chat(messages=[{"role": "user", "content": ""}] * 5000), "messages"),
    "no prompt": (TEXT, {}, "prompt"),
    "empty prompt": (*text(prompt=""), "prompt"),
    "no prompts": (*text(prompt=[]), "prompt"),
    "a token too large": (*text(prompt=[999]), None),
    "a negative token": (*text(prompt=[-1]), "prompt"),
    "a prompt that is too long": (*text(prompt="x" * 600), "prompt"),
    "a huge prompt": (*text(prompt="x" * 3_000_000), "prompt"),
    "prompt of mixed kinds": (*text(prompt=["a", 5]), "prompt"),
    "too many prompts": (*text(prompt=["a"] * 1000), "prompt"),
    "max_tokens 0": (*text(max_tokens=0), "max_tokens"),
    "negative max_tokens": (*text(max_tokens=-5), "max_tokens"),
    "enormous max_tokens": (*text(max_tokens=10**9), "max_tokens"),
    "max_tokens beyond the context": (*text(max_tokens=512), "max_tokens"),
    "max_tokens as text": (*text(max_tokens="5"), "max_tokens"),
    "temperature too high": (*chat(temperature=2.5), "temperature"),
    "temperature negative": (*chat(temperature=-1), "temperature"),
    "top_p 0": (*chat(top_p=0), "top_p"),
    "top_p above 1": (*chat(top_p=1.5), "top_p"),
    "top_k below -1": (*chat(top_k=-2), "top_k"),
    "min_p above 1": (*chat(min_p=2), "min_p"),
    "n 0": (*chat(n=0), "n"),
    "n enormous": (*chat(n=100000), "n"),
    "too many stops": (*chat(stop=["a"] * 100), "stop"),
    "an empty stop": (*chat(stop=""), "stop"),
    "stop of numbers": (*chat(stop=[1]), "stop.0"),
    "seed too large": (*chat(seed=2**70), "seed"),
    "presence_penalty": (*chat(presence_penalty=3), "presence_penalty"),
    "frequency_penalty": (*chat(frequency_penalty=-3), "frequency_penalty"),
    "repetition_penalty 0": (*chat(repetition_penalty=0), "repetition_penalty"),
    "logit_bias of a word": (*chat(logit_bias={"hello": 1}), None),
    "logit_bias too large": (*chat(logit_bias={"5": 1000}), "logit_bias.5"),
    "logit_bias beyond the vocabulary": (*chat(logit_bias={"100000": 1}), None),
    "stream as text": (*chat(stream="yes"), "stream"),
    "stream_options without stream": (*chat(stream_options={"include_usage": True}), None),
    "top_logprobs alone": (*chat(top_logprobs=2), None),
    "too many logprobs": (*text(logprobs=100), "logprobs"),
    "unknown response_format": (*chat(response_format={"type": "xml"}), "response_format.type"),
    "json_schema without one": (*chat(response_format={"type": "json_schema"}), "response_format"),
    "a schema of nonsense": (*schema({"type": "nonsense"}), "response_format"),
    "a schema with an unknown reference": (*schema({"$ref": "#/$defs/none"}), "response_format"),
    "a schema that is too large": (*schema({"enum": ["x" * 200_000]}), None),
    "a regex that is open": (*text(structured_outputs={"regex": "(("}), "response_format"),
    "two structures": (*text(structured_outputs={"regex": "a", "choice": ["a"]}), "structured_outputs"),
    "a broken Lark grammar": (*text(structured_outputs={"grammar": "start: ???"}), "response_format"),
    "a tool with a bad name": (*chat(tools=[{**TOOL, "function": {"name": "a b"}}]), "tools.0.function.name"),
    "too many tools": (*chat(tools=[TOOL] * 1000), "tools"),
    "a choice of no tool": (*chat(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "g"}}), None),
    "required without tools": (*chat(tool_choice="required"), None),
    "priority out of range": (*chat(priority=10**9), "priority"),
    "a salt that is too long": (*chat(cache_salt="x" * 1000), "cache_salt"),
    "embedding nothing": (VECTOR, {"input": []}, "input"),
    "embedding too much": (VECTOR, {"input": "x" * 600}, "input"),
    "embedding an empty text": (VECTOR, {"input": ""}, "input"),
    "unknown encoding": (VECTOR, {"input": "x", "encoding_format": "hex"}, "encoding_format"),
    "tokenize both": ("/tokenize", {"prompt": "x", "messages": [{"role": "user"}]}, None),
    "detokenize words": ("/detokenize", {"tokens": ["a"]}, "tokens.0"),
    "detokenize a negative": ("/detokenize", {"tokens": [-5]}, "tokens.0"),
}  # fmt: skip

RAW = {
    "nothing": b"",
    "no JSON": b"hello",
    "half of it": b'{"prompt": "x"',
    "invalid UTF-8": b'{"prompt": "\xff\xfe"}',
    "a lone surrogate": b'{"prompt": "\\ud800"}',
    "a list": b"[1]",
    "null": b"null",
    "NaN": b'{"prompt": "x", "temperature": NaN}',
    "infinity": b'{"prompt": "x", "temperature": 1e999}',
    "deep nesting": b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.fixture
def goes_on(server):
    """The engine still answers, and holds nothing."""
    yield
    status, answer = server.send(TEXT, {"prompt": "x", "max_tokens": 2})
    assert (status, answer["object"]) == (200, "text_completion")
    server.until(lambda: server.metric("vllm:num_requests_running") == 0, "nothing runs")


def assert_refused(status, answer, param=None):
    assert 400 <= status < 500, answer
    error = answer["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"] == "invalid_request_error"
    assert param is None or f"{error['param']}.".startswith(f"{param}.")


@pytest.mark.parametrize("case", BAD)
def test_a_bad_field(case, server, goes_on):
    path, body, param = BAD[case]
    assert_refused(*server.send(path, body), param)


@pytest.mark.parametrize(
    "case", ["empty messages", "a schema of nonsense", "n 0", "a token too large"]
)
def test_a_bad_field_of_a_stream_is_refused_before_it_starts(case, server):
    path, body, param = BAD[case]
    assert_refused(*server.send(path, {"stream": True, **body}), param)


@pytest.mark.parametrize("case", RAW)
def test_a_bad_body(case, server, goes_on):
    assert_refused(*server.send(TEXT, raw=RAW[case]))


def test_a_body_that_is_too_large(server, goes_on):
    status, answer = server.send(TEXT, {"prompt": "x" * (17 << 20)})
    assert (status, "larger than" in answer["error"]["message"]) == (413, True)


def test_unknown_places(server):
    assert server.send("/v1/nothing", {})[0] == 404
    status, answer = server.send(CHAT, method="GET")
    assert (status, answer["error"]["message"]) == (405, f"GET is not allowed on {CHAT}")
    status, answer = server.send(*chat(model="gpt-4"))
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    assert "tiny" in answer["error"]["message"]


def test_adapters_are_off_unless_they_have_a_folder(server):
    body = {"lora_name": "a", "lora_path": "/etc"}
    assert server.send("/v1/load_lora_adapter", body)[0] == 403
    assert server.send("/v1/unload_lora_adapter", body)[0] == 404


@pytest.mark.parametrize(
    "value",
    [nested(60), {"type": "string", "pattern": "(((a{1000}){1000}){1000}){1000}"}],
    ids=["deep", "explosive"],
)
def test_schemas_that_would_explode_do_no_harm(value, server, goes_on):
    status, answer = server.send(*schema(value))
    assert status == 200 or "grammar" in answer["error"]["message"]


def test_memory_stays_bounded(server, goes_on):
    """Many hostile requests at once, and again: later ones take no more memory."""
    small = [name for name in BAD if len(str(BAD[name][1])) < 1000]

    def flood():
        def one(index):
            server.send(*BAD[small[index]][:2])

        threads = [threading.Thread(target=one, args=(i,)) for i in range(len(small))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(resident(pid) for pid in (server.process.pid, server.engine_pid()))

    before = flood()
    assert flood() < before + (200 << 20)


def resident(pid):
    fields = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in fields if line.startswith("VmRSS")).split()[1]) << 10


def test_the_cases_are_json():
    json.dumps({name: case[1] for name, case in BAD.items()})
    assert len(BAD) + len(RAW) > 60
