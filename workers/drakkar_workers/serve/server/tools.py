"""Tool calls: how models are told of functions, and how their calls are read.

Most open models write a call as ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>`` (the
Hermes format). Where the client demands a call, a grammar makes the answer one.
"""

import json
from typing import Any

from drakkar_workers.serve.engine.request import Grammar
from drakkar_workers.serve.server.schemas import ChatBody, NamedTool, Tool
from drakkar_workers.serve.server.service import new_id

OPEN, CLOSE = "<tool_call>", "</tool_call>"


def demanded(body: ChatBody) -> Grammar | None:
    """The grammar of an answer that must be a call."""
    if not body.tools or body.tool_choice in (None, "auto", "none"):
        return None
    tools = body.tools
    if isinstance(body.tool_choice, NamedTool):
        name = body.tool_choice.function.name
        tools = [tool for tool in tools if tool.function.name == name]
    schemas = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool.function.name},
                "arguments": tool.function.parameters or {"type": "object"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    return Grammar(
        "json_schema", json.dumps({"anyOf": schemas} if len(schemas) > 1 else schemas[0])
    )


def instructions(tools: list[Tool]) -> str:
    """What a model is told whose template knows no tools."""
    described = "\n".join(
        json.dumps(tool.model_dump(exclude_none=True)["function"], ensure_ascii=False)
        for tool in tools
    )
    return (
        "You may call these functions, described in JSON:\n"
        f"<tools>\n{described}\n</tools>\n"
        "To call one, answer with its name and arguments as JSON:\n"
        f'{OPEN}{{"name": "NAME", "arguments": {{}}}}{CLOSE}'
    )


class ToolParser:
    """Takes calls out of a text that comes in pieces."""

    def __init__(self, *, whole: bool) -> None:
        self._whole = whole
        """The text is one call, as the grammar made it."""
        self._held = ""
        self._inside = whole
        self._calls: list[str] = []

    def add(self, text: str) -> str:
        """Text that belongs to no call, as far as is certain."""
        self._held += text
        shown = ""
        while not self._whole:
            mark = CLOSE if self._inside else OPEN
            at = self._held.find(mark)
            if at < 0:
                break
            before, self._held = self._held[:at], self._held[at + len(mark) :]
            if self._inside:
                self._calls.append(before)
            else:
                shown += before
            self._inside = not self._inside
        if not self._inside:
            keep = next(
                (n for n in range(min(len(OPEN) - 1, len(self._held)), 0, -1)
                 if OPEN.startswith(self._held[-n:])),
                0,
            )  # fmt: skip
            cut = len(self._held) - keep
            shown, self._held = shown + self._held[:cut], self._held[cut:]
        return shown

    def finish(self, *, parallel: bool = True) -> tuple[str, list[dict[str, Any]]]:
        """The rest of the text, and the calls as OpenAI shows them.

        What looks like a call but can't be read is text.
        """
        rest = self._held
        if self._inside:
            self._calls.append(rest)
            rest = ""
        calls: list[dict[str, Any]] = []
        for source in self._calls:
            found = _read(source)
            if found is None:
                rest += source if self._whole else f"{OPEN}{source}"
            calls += found or []
        return rest, calls if parallel else calls[:1]


def _read(source: str) -> list[dict[str, Any]] | None:
    try:
        value = json.loads(source)
    except (ValueError, RecursionError):
        return None
    calls = []
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, dict) or not isinstance(one.get("name"), str):
            return None
        arguments = one.get("arguments", one.get("parameters", {}))
        text = (
            arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        )
        function = {"name": one["name"], "arguments": text}
        calls.append({"id": new_id("call"), "type": "function", "function": function})
    return calls
