"""Chat templates: Jinja as models bring it, in a sandbox, since a model's author is no admin."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from drakkar_workers.errors import ConfigError

PLAIN = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
"""For models that bring no template: those that were only pre-trained."""
MAX_CHARS = 4_000_000
"""Of a rendered prompt."""


class TemplateRefusal(ValueError):  # noqa: N818 (no fault of the program)
    """A template does not take these messages."""


class ChatTemplate:
    """A model's template and the special tokens that it may name."""

    def __init__(self, source: str, special: dict[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["range"] = _bounded_range
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _now
        environment.filters["tojson"] = _tojson
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise ConfigError(f"the model's chat template: {error}") from None
        self._special = special
        self.knows_tools = "tools" in meta.find_undeclared_variables(environment.parse(source))
        """Whether the template tells the model of functions."""

    def render(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, **extra: Any
    ) -> str:
        """The text of a conversation. Raises TemplateRefusal if the template refuses it."""
        values = {"add_generation_prompt": True, **self._special, **extra}
        try:
            parts = []
            size = 0
            for part in self._template.generate(messages=messages, tools=tools, **values):
                parts.append(part)
                size += len(part)
                if size > MAX_CHARS:
                    raise TemplateRefusal(
                        f"the conversation renders to over {MAX_CHARS} characters"
                    )
            return "".join(parts)
        except TemplateRefusal:
            raise
        # A template is a program: whatever it raises is about the messages that it was given.
        except Exception as error:
            raise TemplateRefusal(f"the chat template refuses the messages: {error}") from None


def read_template(folder: Path) -> ChatTemplate:
    """The template of a model's folder. Raises ConfigError."""
    path = folder / "tokenizer_config.json"
    try:
        settings = json.loads(path.read_text()) if path.is_file() else {}
        beside = folder / "chat_template.jinja"
        source = beside.read_text() if beside.is_file() else settings.get("chat_template")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if isinstance(source, list):
        source = next((one["template"] for one in source if one.get("name") == "default"), None)
    special = {}
    for name in ("bos_token", "eos_token", "unk_token", "pad_token"):
        token = settings.get(name)
        special[name] = token["content"] if isinstance(token, dict) else token or ""
    return ChatTemplate(source or PLAIN, special)


def _bounded_range(*bounds: int) -> range:
    found = range(*bounds)
    if len(found) > 100_000:
        raise ValueError("a range of over 100000")
    return found


def _raise(message: str) -> None:
    raise ValueError(message)


def _now(form: str) -> str:
    return datetime.now(UTC).strftime(form)


def _tojson(value: Any, indent: int | None = None, **_ignored: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
