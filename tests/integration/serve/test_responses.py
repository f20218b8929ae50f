"""The official client against /v1/responses."""

import json

import openai
import pytest

TOOL = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=60
    ) as one:
        yield one


def test_an_answer_says_what_chat_says(client):
    asked = {"model": "tiny", "temperature": 0}
    answer = client.responses.create(
        **asked, instructions="Be short.", input="Hello", max_output_tokens=12
    )
    chat = client.chat.completions.create(
        **asked, max_tokens=12,
        messages=[{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello"}],
    )  # fmt: skip
    assert answer.output_text == chat.choices[0].message.content
    assert answer.usage.input_tokens == chat.usage.prompt_tokens
    assert answer.usage.output_tokens == chat.usage.completion_tokens
    cut = chat.choices[0].finish_reason == "length"
    assert answer.status == ("incomplete" if cut else "completed")
    assert (answer.incomplete_details is not None) == cut
    assert answer.model == "tiny"


def test_items_and_parts_are_a_conversation(client):
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "function_call", "call_id": "1", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "rain"},
    ]
    answer = client.responses.create(
        model="tiny", input=items, tools=[TOOL], max_output_tokens=4, temperature=0
    )
    assert answer.usage.input_tokens > 20
    earlier = [one.model_dump(exclude_none=True) for one in answer.output]
    more = [*items, *earlier, {"role": "user", "content": "b"}]
    assert client.responses.create(model="tiny", input=more, max_output_tokens=2).id != answer.id


def test_a_stream_builds_the_same_answer(client):
    fixed = {"model": "tiny", "input": "Hello", "max_output_tokens": 30, "temperature": 0}
    whole = client.responses.create(**fixed)
    events = list(client.responses.create(**fixed, stream=True))
    assert [one.sequence_number for one in events] == list(range(len(events)))
    kinds = [one.type for one in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    deltas = [one.delta for one in events if one.type == "response.output_text.delta"]
    assert len(deltas) > 1
    assert "".join(deltas) == whole.output_text
    last = events[-1]
    assert last.type == f"response.{last.response.status}"
    assert last.response.output_text == whole.output_text
    # The second one found the prompt in the cache, which the usage tells too.
    assert last.response.usage.total_tokens == whole.usage.total_tokens


def test_a_call_that_is_demanded(client):
    choice = {"type": "function", "name": "weather"}
    fixed = {
        "model": "tiny", "input": "Hello", "tools": [TOOL], "tool_choice": choice,
        "max_output_tokens": 60, "temperature": 0,
    }  # fmt: skip
    answer = client.responses.create(**fixed)
    (call,) = answer.output
    assert (call.type, call.name) == ("function_call", "weather")
    assert json.loads(call.arguments)["city"] in ("Oslo", "Rome")
    events = list(client.responses.create(**fixed, stream=True))
    done = next(one for one in events if one.type == "response.function_call_arguments.done")
    assert done.arguments == call.arguments
    assert events[-1].response.output[0].name == "weather"


def test_a_schema(client):
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"],
              "additionalProperties": False}  # fmt: skip
    form = {"type": "json_schema", "name": "s", "schema": schema}
    answer = client.responses.create(
        model="tiny", input="x", text={"format": form}, max_output_tokens=40, temperature=0
    )
    assert json.loads(answer.output_text)["a"] in (1, 2)


def test_log_probabilities(client):
    answer = client.responses.create(
        model="tiny", input="x", max_output_tokens=3, top_logprobs=2,
        include=["message.output_text.logprobs"],
    )  # fmt: skip
    found = answer.output[0].content[0].logprobs
    assert len(found) >= 1
    assert all(len(one.top_logprobs) == 2 for one in found)


BAD = {
    "no input": ({}, "input"),
    "an empty input": ({"input": []}, "input"),
    "an image": ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input"),
    "an unknown item": ({"input": [{"type": "reasoning"}]}, "input"),
    "an earlier answer": ({"input": "x", "previous_response_id": "resp_1"}, None),
    "in the background": ({"input": "x", "background": True}, None),
    "a tool of the house": ({"input": "x", "tools": [{"type": "web_search"}]}, "tools"),
    "a tool that is not there": (
        {"input": "x", "tool_choice": {"type": "function", "name": "f"}, "tools": [TOOL]},
        None,
    ),
    "too many tokens": ({"input": "x", "max_output_tokens": 10**9}, "max_output_tokens"),
    "a schema that is missing": (
        {"input": "x", "text": {"format": {"type": "json_schema"}}},
        "text",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request(case, server):
    body, param = BAD[case]
    status, answer = server.send("/v1/responses", body)
    assert status == 400, answer
    error = answer["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert param is None or error["param"].startswith(param), error
