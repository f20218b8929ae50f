"""Conversations as prompts; what a template refuses is the client's mistake."""

from typing import Any

from drakkar_workers.hf.chat import ChatTemplate, TemplateRefusal
from drakkar_workers.serve.server.errors import ApiError


def fill(
    template: ChatTemplate,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]] | None,
    **extra: Any,
) -> str:
    """The prompt of a conversation. Raises ApiError if the template refuses it."""
    try:
        return template.render(messages, tools, **extra)
    except TemplateRefusal as error:
        raise ApiError(str(error), param="messages") from None
