"""The official client against the server."""

import base64
import json

import numpy as np
import openai
import pytest

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
]
TALK = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=60)


def test_models(client):
    assert [one.id for one in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "drakkar"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_a_chat(client):
    answer = client.chat.completions.create(
        model="tiny", messages=TALK, max_completion_tokens=8, temperature=0
    )
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason in ("stop", "length")
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens <= 8


def test_a_streamed_chat_says_the_same(client):
    fixed = {"model": "tiny", "messages": TALK, "max_tokens": 40, "seed": 5}
    whole = client.chat.completions.create(**fixed)
    chunks = list(
        client.chat.completions.create(**fixed, stream=True, stream_options={"include_usage": True})
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == (
        whole.choices[0].finish_reason
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_the_cache_shows_in_the_usage(client):
    long = [{"role": "user", "content": "0123456789" * 12}]
    ask = {"model": "tiny", "messages": long, "max_tokens": 1}
    client.chat.completions.create(**ask)
    again = client.chat.completions.create(**ask).usage
    assert again.prompt_tokens_details.cached_tokens >= 96
    salted = client.chat.completions.create(**ask, extra_body={"cache_salt": "mine"}).usage
    assert salted.prompt_tokens_details.cached_tokens == 0


def test_several_choices(client):
    answer = client.chat.completions.create(model="tiny", messages=TALK, max_tokens=12, n=4, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert len({choice.message.content for choice in answer.choices}) > 1
    first = client.chat.completions.create(model="tiny", messages=TALK, max_tokens=12, seed=1)
    assert first.choices[0].message.content == answer.choices[0].message.content
    chunks = client.chat.completions.create(
        model="tiny", messages=TALK, max_tokens=12, n=4, seed=1, stream=True
    )
    texts = ["", "", "", ""]
    for chunk in chunks:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [choice.message.content for choice in answer.choices]


def test_log_probabilities(client):
    answer = client.chat.completions.create(
        model="tiny", messages=TALK, max_tokens=5, temperature=0, logprobs=True, top_logprobs=3
    )
    content = answer.choices[0].logprobs.content
    assert len(content) == 5
    for one in content:
        assert len(one.top_logprobs) == 3
        assert one.logprob == one.top_logprobs[0].logprob <= 0
    completion = client.completions.create(
        model="tiny", prompt="abc", max_tokens=4, temperature=0, logprobs=2
    ).choices[0]
    assert len(completion.logprobs.tokens) == len(completion.logprobs.token_logprobs) == 4
    assert completion.logprobs.text_offset[0] == 0


def test_completions(client):
    answer = client.completions.create(model="tiny", prompt=["ab", "cd"], max_tokens=6, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage.prompt_tokens == 4
    echoed = client.completions.create(model="tiny", prompt="ab", max_tokens=2, echo=True)
    assert echoed.choices[0].text.startswith("ab")
    ids = client.completions.create(model="tiny", prompt=[97, 98], max_tokens=6, temperature=0)
    text = client.completions.create(model="tiny", prompt="ab", max_tokens=6, temperature=0)
    assert ids.choices[0].text == text.choices[0].text
    streamed = client.completions.create(
        model="tiny", prompt="ab", max_tokens=6, temperature=0, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in streamed) == text.choices[0].text


def test_the_likelihood_of_a_given_text(client):
    asked = {"model": "tiny", "prompt": "ab cd", "max_tokens": 1, "temperature": 0, "logprobs": 1}
    (choice,) = client.completions.create(**asked, echo=True).choices
    found = choice.logprobs
    assert "".join(found.tokens[:5]) == "ab cd"
    assert found.text_offset == [0, 1, 2, 3, 4, 5]
    assert found.token_logprobs[0] is found.top_logprobs[0] is None
    assert all(value <= 0 for value in found.token_logprobs[1:])
    # The same as if the model had said it itself.
    forced = client.completions.create(
        **{**asked, "prompt": "ab c"}, extra_body={"structured_outputs": {"choice": ["d"]}}
    ).choices[0]
    assert forced.text == "d"
    assert forced.logprobs.token_logprobs[0] == pytest.approx(found.token_logprobs[4], abs=1e-4)
    first = next(iter(client.completions.create(**asked, echo=True, stream=True))).choices[0]
    assert first.logprobs.tokens == found.tokens[: len(first.logprobs.tokens)]


def test_stop_sequences(client):
    fixed = {"model": "tiny", "prompt": "ab", "max_tokens": 60, "seed": 3,
             "extra_body": {"ignore_eos": True}}  # fmt: skip
    bias = {str(byte): 100 for byte in b"xyz"}
    free = client.completions.create(**fixed, logit_bias=bias).choices[0].text
    assert set(free) <= set("xyz")
    stop = free[10:13]
    for stream in (False, True):
        answer = client.completions.create(**fixed, logit_bias=bias, stop=[stop], stream=stream)
        if stream:
            chunks = list(answer)
            text, finish = "".join(c.choices[0].text for c in chunks), chunks[-1].choices[0]
        else:
            text, finish = answer.choices[0].text, answer.choices[0]
        assert text == free[: free.index(stop)]
        assert finish.finish_reason == "stop"
        assert finish.model_extra["stop_reason"] == stop


SCHEMA = {
    "type": "object",
    "properties": {
        "color": {"enum": ["red", "blue"]},
        "n": {"type": "integer", "maximum": 9, "minimum": 0},
    },
    "required": ["color", "n"],
    "additionalProperties": False,
}


def test_json_schema(client):
    answer = client.chat.completions.create(
        model="tiny", messages=TALK, max_tokens=200, seed=2,
        response_format={
            "type": "json_schema", "json_schema": {"name": "pick", "schema": SCHEMA, "strict": True}
        },
    )  # fmt: skip
    value = json.loads(answer.choices[0].message.content)
    assert value["color"] in ("red", "blue")
    assert 0 <= value["n"] <= 9
    assert answer.choices[0].finish_reason == "stop"


def test_other_structures(client):
    def ask(**outputs):
        body = {"structured_outputs": outputs}
        made = client.completions.create(model="tiny", prompt="x", max_tokens=50, extra_body=body)
        return made.choices[0].text

    assert ask(choice=["left", "right"]) in ("left", "right")
    assert ask(regex="[0-9]{3}-[a-f]{2}")[3] == "-"


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "weather"}}], ids=str
)
def test_a_tool_call_that_is_demanded(client, choice):
    answer = client.chat.completions.create(
        model="tiny", messages=TALK, tools=TOOLS, tool_choice=choice, max_tokens=60, seed=1
    ).choices[0]
    assert answer.finish_reason == "tool_calls"
    call = answer.message.tool_calls[0]
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in ("Oslo", "Rome")
    streamed = client.chat.completions.create(
        model="tiny", messages=TALK, tools=TOOLS, tool_choice=choice, max_tokens=60, seed=1,
        stream=True,
    )  # fmt: skip
    last = next(chunk for chunk in streamed if chunk.choices[0].finish_reason).choices[0]
    assert last.finish_reason == "tool_calls"
    assert last.delta.tool_calls[0].function.arguments == call.function.arguments


def test_tools_do_not_disturb_a_plain_answer(client):
    answer = client.chat.completions.create(
        model="tiny", messages=TALK, tools=TOOLS, tool_choice="auto", max_tokens=8
    ).choices[0]
    assert answer.message.tool_calls is None
    history = [
        *TALK,
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "rain"},
    ]  # fmt: skip
    assert client.chat.completions.create(model="tiny", messages=history, max_tokens=4).choices


def test_embeddings(client, server):
    answer = client.embeddings.create(model="tiny", input=["a", "b", "a"])
    vectors = np.array([one.embedding for one in answer.data])
    assert vectors.shape == (3, 64)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    assert np.array_equal(vectors[0], vectors[2])
    assert not np.allclose(vectors[0], vectors[1])
    plain = server.send("/v1/embeddings", {"input": "a", "encoding_format": "base64"})[1]
    decoded = np.frombuffer(base64.b64decode(plain["data"][0]["embedding"]), "<f4")
    assert np.allclose(decoded, vectors[0], atol=1e-6)
    short = client.embeddings.create(model="tiny", input="a", dimensions=8).data[0].embedding
    assert np.linalg.norm(short) == pytest.approx(1)


def test_tokens_there_and_back(server):
    status, answer = server.send("/tokenize", {"prompt": "häuser"})
    assert (status, answer["count"]) == (200, 7)
    assert server.send("/detokenize", {"tokens": answer["tokens"]})[1] == {"prompt": "häuser"}
    assert server.send("/tokenize", {"messages": TALK})[1]["count"] > 5


def test_operations(server):
    assert server.send("/health") == (200, "ok\n")
    assert server.send("/livez") == (200, "ok\n")
    assert "version" in server.send("/version")[1]


def test_metrics_move(server):
    before = {name: server.metric(name) for name in COUNTERS}
    server.send("/v1/completions", {"prompt": "abcdef" * 8, "max_tokens": 7, "ignore_eos": True})
    server.send("/v1/completions", {"prompt": "abcdef" * 8, "max_tokens": 7, "ignore_eos": True})
    grown = {name: server.metric(name) - value for name, value in before.items()}
    assert grown == pytest.approx(COUNTERS)
    text = server.send("/metrics")[1]
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc",
                 "cache_config_info", "lora_requests_info", "num_preemptions_total",
                 "spec_decode_num_draft_tokens_total", "inter_token_latency_seconds_bucket"):  # fmt: skip
        assert f"vllm:{name}" in text


COUNTERS = {
    "vllm:prompt_tokens_total": 96,
    "vllm:generation_tokens_total": 14,
    "vllm:request_success_total": 2,
    "vllm:time_to_first_token_seconds_count": 2,
    "vllm:e2e_request_latency_seconds_count": 2,
    "vllm:request_queue_time_seconds_count": 2,
    "vllm:prefix_cache_queries_total": 96,
    "vllm:prefix_cache_hits_total": 32,
}
