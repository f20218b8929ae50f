"""What clients may send to /v1/responses, and how it reads as a conversation."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from drakkar_workers.serve.server.schemas import MAX_MESSAGES, MAX_TOKENS, Text


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


Id = Annotated[str, Field(max_length=256)]


class TextPart(_Body):
    """A piece of a message; only text is understood."""

    type: Literal["input_text", "output_text", "text"]
    text: Text


class MessageItem(_Body):
    """One turn."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Text | Annotated[list[TextPart], Field(max_length=1024)]

    def message(self) -> dict[str, Any]:
        """As chat has it."""
        content = self.content
        if isinstance(content, list):
            content = "".join(part.text for part in content)
        return {"role": self.role, "content": content}


class CallItem(_Body):
    """A call that the model made earlier."""

    type: Literal["function_call"]
    call_id: Id
    name: Id
    arguments: Text

    def message(self) -> dict[str, Any]:
        """As chat has it."""
        function = {"name": self.name, "arguments": self.arguments}
        call = {"id": self.call_id, "type": "function", "function": function}
        return {"role": "assistant", "tool_calls": [call]}


class CallOutputItem(_Body):
    """What the function gave."""

    type: Literal["function_call_output"]
    call_id: Id
    output: Text

    def message(self) -> dict[str, Any]:
        """As chat has it."""
        return {"role": "tool", "tool_call_id": self.call_id, "content": self.output}


class FunctionTool(_Body):
    """A function that the model may call."""

    type: Literal["function"]
    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_.-]+$")]
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedFunction(_Body):
    """The function that must be called."""

    type: Literal["function"]
    name: Id


class TextFormat(_Body):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: Id = "response"
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def _complete(self) -> "TextFormat":
        if self.type == "json_schema" and self.schema_ is None:
            raise ValueError("schema is required with type json_schema")
        return self


class TextOptions(_Body):
    """About the text of the answer."""

    format: TextFormat = Field(default_factory=TextFormat)


class ResponsesBody(_Body):
    """POST /v1/responses. Nothing is stored: each request brings its whole conversation."""

    model: Annotated[str, Field(max_length=512)] | None = None
    input: (
        Text
        | Annotated[
            list[MessageItem | CallItem | CallOutputItem],
            Field(min_length=1, max_length=MAX_MESSAGES),
        ]
    )
    instructions: Text | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=128)] = Field(default_factory=list)
    tool_choice: Literal["none", "auto", "required"] | NamedFunction = "auto"
    parallel_tool_calls: bool = True
    text: TextOptions = Field(default_factory=TextOptions)
    stream: bool = False
    store: bool | None = None
    previous_response_id: str | None = None
    background: bool | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    include: Annotated[list[str], Field(max_length=16)] | None = None

    @model_validator(mode="after")
    def _stateless(self) -> "ResponsesBody":
        if self.previous_response_id is not None:
            raise ValueError(
                "previous_response_id: no responses are stored here; send the conversation as input"
            )
        if self.background:
            raise ValueError("background: no responses are stored here; leave it out")
        return self

    def chat(self) -> dict[str, Any]:
        """The body of the same request to /v1/chat/completions."""
        told = self.input
        items = [{"role": "user", "content": told}] if isinstance(told, str) else [
            item.message() for item in told
        ]  # fmt: skip
        if self.instructions is not None:
            items.insert(0, {"role": "system", "content": self.instructions})
        body: dict[str, Any] = {
            "model": self.model,
            "messages": items,
            "max_completion_tokens": self.max_output_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "stream": self.stream,
            "parallel_tool_calls": self.parallel_tool_calls,
            "user": self.user,
        }
        if self.top_logprobs is not None or "message.output_text.logprobs" in (self.include or []):
            body |= {"logprobs": True, "top_logprobs": self.top_logprobs or 0}
        if self.tools:
            plain = [tool.model_dump(exclude={"type"}, exclude_none=True) for tool in self.tools]
            body["tools"] = [{"type": "function", "function": function} for function in plain]
            choice = self.tool_choice
            body["tool_choice"] = choice if isinstance(choice, str) else {
                "type": "function", "function": {"name": choice.name}
            }  # fmt: skip
        form = self.text.format
        if form.type == "json_object":
            body["response_format"] = {"type": "json_object"}
        elif form.type == "json_schema":
            schema = {"name": form.name, "schema": form.schema_, "strict": form.strict}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body
