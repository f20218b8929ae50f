"""The requests of a batch's input, line by line."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
REQUESTS_LIMIT = 50_000
LINE_LIMIT_BYTES = 4 << 20
ERRORS_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Line:
    """One request."""

    number: int
    """Of the line, from 1."""
    custom_id: str
    body: dict[str, Any]


class LineError(Exception):
    """What is wrong with a line of the input."""

    def __init__(self, number: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.number = number
        self.message = message
        self.param = param

    def body(self) -> dict[str, Any]:
        """As OpenAI shows it."""
        return {
            "code": "invalid_request",
            "line": self.number,
            "message": self.message,
            "param": self.param,
        }


def read(path: Path, endpoint: str) -> Iterator[Line | LineError]:
    """Each request of the input, or what is wrong with it; empty lines are no requests."""
    seen: set[str] = set()
    with path.open("rb") as text:
        number = 0
        while raw := text.readline(LINE_LIMIT_BYTES + 1):
            number += 1
            if len(raw) > LINE_LIMIT_BYTES:
                yield LineError(number, f"the line is longer than {LINE_LIMIT_BYTES} bytes")
                return
            if not raw.strip():
                continue
            try:
                line = _line(number, raw, endpoint)
            except LineError as error:
                yield error
                continue
            if line.custom_id in seen:
                yield LineError(
                    number, f"custom_id {line.custom_id[:64]!r} is used twice", "custom_id"
                )
                continue
            if len(seen) == REQUESTS_LIMIT:
                yield LineError(number, f"a batch has at most {REQUESTS_LIMIT} requests")
                return
            seen.add(line.custom_id)
            yield line


def check(path: Path, endpoint: str) -> tuple[int, list[dict[str, Any]]]:
    """(number of requests, the first errors) of an input."""
    count, errors = 0, []
    for one in read(path, endpoint):
        count += 1
        if isinstance(one, LineError):
            errors.append(one.body())
            if len(errors) == ERRORS_SHOWN:
                break
    if not count:
        errors.append(
            LineError(1, "the file has no requests: write one JSON object per line").body()
        )
    return count, errors


def _line(number: int, raw: bytes, endpoint: str) -> Line:
    try:
        found = json.loads(raw)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise LineError(number, f"the line is not JSON: {str(error)[:200]}") from None
    if not isinstance(found, dict):
        raise LineError(number, "the line is not a JSON object")
    custom_id = found.get("custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= 512:
        raise LineError(number, "custom_id must be a text of 1 to 512 characters", "custom_id")
    if found.get("method") != "POST":
        raise LineError(number, "method must be POST", "method")
    if found.get("url") != endpoint:
        message = f"url must be {endpoint}, as the batch's endpoint is"
        raise LineError(number, message, "url")
    body = found.get("body")
    if not isinstance(body, dict):
        raise LineError(number, "body must be a JSON object", "body")
    if body.get("stream"):
        raise LineError(number, "an answer in a batch can't be streamed", "body.stream")
    return Line(number, custom_id, body)
