"""What is learned of a conversation, and what is no conversation."""

import json

import pytest

from drakkar_workers.data.conversations import digest, read_examples, read_messages, tokenize
from drakkar_workers.data.tokenizer import bytes_tokenizer
from drakkar_workers.errors import ConfigError
from drakkar_workers.hf.chat import ChatTemplate

CHATML = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TURNS = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "yö"},
    {"role": "user", "content": "and?"},
    {"role": "assistant", "content": "no"},
]


def template(source: str = CHATML) -> ChatTemplate:
    return ChatTemplate(source, {})


def learned(example) -> str:
    return bytes(example.ids[example.learned].astype("uint8").tolist()).decode()


def test_only_what_the_assistant_says_is_learned():
    example = tokenize(TURNS, template(), bytes_tokenizer(), 1000)
    assert learned(example) == "yö</s>no</s>"
    assert (
        len(example.ids) == len("<user>hi</s><assistant>yö</s><user>and?</s><assistant>no</s>") + 1
    )


def test_long_conversations_are_cut_and_useless_ones_left_out():
    assert learned(tokenize(TURNS, template(), bytes_tokenizer(), 26)) == "yö"
    assert tokenize(TURNS, template(), bytes_tokenizer(), 12) is None


def test_a_template_that_rewrites_history_is_refused():
    source = "{{ messages | length }}" + CHATML
    with pytest.raises(ValueError, match="changes earlier turns"):
        tokenize(TURNS, template(source), bytes_tokenizer(), 1000)


def test_prompts_with_completions_are_conversations(tmp_path):
    path = tmp_path / "c.jsonl"
    lines = [{"prompt": "a", "completion": "b"}, {"messages": TURNS}]
    path.write_text("\n\n".join(json.dumps(line) for line in lines) + "\n")
    examples, left_out = read_examples(path, template(), bytes_tokenizer(), 1000)
    assert [learned(example) for example in examples] == ["b</s>", "yö</s>no</s>"]
    assert left_out == 0
    assert digest(examples) != digest(examples[::-1])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "line 2: is not JSON"),
        (b'{"messages": "\xff"}', "line 2: is not UTF-8"),
        (b"[]", "line 2: is a list, expected an object"),
        (b'{"text": "x"}', "line 2: has neither messages nor prompt and completion"),
        (b'{"messages": []}', "line 2: has neither"),
        (b'{"messages": [{"role": "user"}]}', r"line 2: messages\[0\] needs role and content"),
        (b'{"messages": [{"role": "user", "content": "x"}]}', "line 2: has no message of the ass"),
        (b'{"prompt": "x"}', r"line 2: messages\[1\] needs role and content"),
        (b"", "holds 1 conversations; two are the least"),
    ],
)
def test_bad_lines_are_named(line, message, tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_bytes(json.dumps({"messages": TURNS}).encode() + b"\n" + line + b"\n")
    with pytest.raises(ConfigError, match=message) as error:
        read_messages(path)
    assert str(path) in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_messages(tmp_path / "none.jsonl")
