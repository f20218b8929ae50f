"""Conversations as tokens, and which of these the assistant says."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from drakkar_workers.errors import ConfigError
from drakkar_workers.hf.chat import ChatTemplate, TemplateRefusal

Message = dict[str, Any]
LINE_BYTES = 16 << 20
"""A longer line is no conversation."""


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation: ids of shape (tokens,), and whether each token is learned."""

    ids: NDArray[np.int64]
    learned: NDArray[np.bool_]


def read_messages(path: Path) -> list[list[Message]]:
    """All conversations of a file. Raises ConfigError that names the line."""
    found = []
    for number, item in _objects(path):
        try:
            found.append(_conversation(item))
        except ValueError as error:
            raise ConfigError(f"data.path: {path} line {number}: {error}") from None
    if len(found) < 2:
        raise ConfigError(
            f"data.path: {path} holds {len(found)} conversations; two are the least, one of them "
            "for evaluation"
        )
    return found


def tokenize(
    messages: Sequence[Message], template: ChatTemplate, tokenizer: Tokenizer, limit: int
) -> Example | None:
    """A conversation by the model's template, cut to ``limit`` tokens; None if nothing is learned
    of what is left. Raises ValueError if the template refuses it or can't tell turns apart."""
    plain = list(messages)
    text = template.render(plain, None, add_generation_prompt=False)
    spans = []
    for at, message in enumerate(plain):
        if message["role"] != "assistant":
            continue
        before = template.render(plain[:at], None, add_generation_prompt=True)
        after = template.render(plain[: at + 1], None, add_generation_prompt=False)
        if not (text.startswith(before) and text.startswith(after)):
            raise ValueError("the chat template changes earlier turns when later ones follow")
        spans.append((len(before), len(after)))
    encoded = tokenizer.encode(text, add_special_tokens=False)
    ids = np.asarray(encoded.ids[:limit], np.int64)
    starts = np.asarray([start for start, _ in encoded.offsets[:limit]], np.int64)
    learned = np.zeros(len(ids), np.bool_)
    for begin, end in spans:
        learned |= (starts >= begin) & (starts < end)
    # The first token is predicted from nothing.
    return Example(ids, learned) if learned[1:].any() else None


def read_examples(
    path: Path, template: ChatTemplate, tokenizer: Tokenizer, limit: int
) -> tuple[list[Example], int]:
    """The conversations of a file, and how many were left out, since cut off before the assistant
    says anything. Raises ConfigError."""
    examples, left_out = [], 0
    for number, messages in enumerate(read_messages(path), start=1):
        try:
            example = tokenize(messages, template, tokenizer, limit)
        except (TemplateRefusal, ValueError) as error:
            raise ConfigError(f"data.path: {path}, conversation {number}: {error}") from None
        if example is None:
            left_out += 1
        else:
            examples.append(example)
    if len(examples) < 2:
        raise ConfigError(
            f"data.path: {path}: the assistant speaks within the first {limit} tokens of "
            f"{len(examples)} conversations only; raise sequenceLength"
        )
    return examples, left_out


def read_pairs(
    path: Path, template: ChatTemplate, tokenizer: Tokenizer, limit: int
) -> list[tuple[Example, Example]]:
    """Preferred and refused answers to the same prompts. Raises ConfigError that names the line."""
    found = []
    for number, item in _objects(path):
        where = f"data.path: {path} line {number}"
        prompt = item.get("prompt")
        if isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
        answers = [item.get(key) for key in ("chosen", "rejected")]
        if not isinstance(prompt, list) or not all(isinstance(a, str) and a for a in answers):
            raise ConfigError(
                f"{where}: needs prompt (text or messages), chosen and rejected (text)"
            )
        if answers[0] == answers[1]:
            raise ConfigError(f"{where}: chosen and rejected are the same")
        try:
            one, other = (
                tokenize(
                    _checked([*prompt, {"role": "assistant", "content": answer}]),
                    template,
                    tokenizer,
                    limit,
                )
                for answer in answers
            )
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from None
        if one is None or other is None:
            raise ConfigError(f"{where}: is cut off before the answers; raise sequenceLength")
        found.append((one, other))
    if len(found) < 2:
        raise ConfigError(
            f"data.path: {path} holds {len(found)} pairs; two are the least, one for evaluation"
        )
    return found


def digest(examples: Sequence[Example]) -> str:
    """sha256 of all tokens and of what is learned of them."""
    sha = hashlib.sha256()
    for example in examples:
        sha.update(len(example.ids).to_bytes(8, "little"))
        sha.update(example.ids.tobytes())
        sha.update(example.learned.tobytes())
    return sha.hexdigest()


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of a file that are not empty, by their number."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ConfigError(f"data.path: {path} can't be read: {error.strerror}") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield number, _object(line)
            except ValueError as error:
                raise ConfigError(f"data.path: {path} line {number}: {error}") from None


def _object(line: bytes) -> dict[str, Any]:
    if len(line) > LINE_BYTES:
        raise ValueError(f"has {len(line)} bytes, more than {LINE_BYTES}")
    try:
        item = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 (byte {error.start}: {error.reason})") from None
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from None
    if not isinstance(item, dict):
        raise ValueError(f"is a {type(item).__name__}, expected an object")
    return item


def _conversation(item: dict[str, Any]) -> list[Message]:
    messages = item.get("messages")
    if messages is None and isinstance(item.get("prompt"), str):
        messages = [
            {"role": "user", "content": item["prompt"]},
            {"role": "assistant", "content": item.get("completion")},
        ]
    if not isinstance(messages, list) or not messages:
        raise ValueError("has neither messages nor prompt and completion")
    return _checked(messages)


def _checked(messages: list[Message]) -> list[Message]:
    for at, message in enumerate(messages):
        if not isinstance(message, dict) or not all(
            isinstance(message.get(key), str) for key in ("role", "content")
        ):
            raise ValueError(f"messages[{at}] needs role and content as text")
    if not any(message["role"] == "assistant" for message in messages):
        raise ValueError("has no message of the assistant: nothing to learn")
    return messages


def read_tokenizer(folder: Path) -> Tokenizer:
    """A model's tokenizer. Raises ConfigError."""
    try:
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    # The library raises Exception itself.
    except Exception as error:
        raise ConfigError(f"{folder / 'tokenizer.json'}: {error}") from None
