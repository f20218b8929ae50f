"""What clients may send, with all its bounds. Unknown fields are ignored, as OpenAI does."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from drakkar_workers.serve.engine.request import Grammar

MAX_STOPS = 16
MAX_CHOICES = 64
MAX_PROMPTS = 256
MAX_MESSAGES = 4096
MAX_TEXT = 4_000_000
MAX_SCHEMA = 100_000
MAX_TOKENS = 1 << 24
SEED_LIMIT = 1 << 63

Stop = Annotated[str, Field(min_length=1, max_length=256)]
Text = Annotated[str, Field(max_length=MAX_TEXT)]
TokenIds = Annotated[list[Annotated[int, Field(ge=0, lt=1 << 31)]], Field(min_length=1)]


class _Body(BaseModel):
    # Strict: "5" is no number, and 1 is no boolean.
    model_config = ConfigDict(extra="ignore", strict=True)


class StreamOptions(_Body):
    """What a stream carries beside the text."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class JsonSchema(_Body):
    """A named schema."""

    name: Annotated[str, Field(max_length=256)] = "response"
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class ResponseFormat(_Body):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _complete(self) -> "ResponseFormat":
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("json_schema is required with type json_schema")
        return self


class StructuredOutputs(_Body):
    """The same with more kinds, as vLLM names them; exactly one."""

    json_: dict[str, Any] | None = Field(default=None, alias="json")
    regex: Annotated[str, Field(max_length=MAX_SCHEMA)] | None = None
    choice: (
        Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=1024)]
        | None
    ) = None
    grammar: Annotated[str, Field(max_length=MAX_SCHEMA)] | None = None
    json_object: bool | None = None

    @model_validator(mode="after")
    def _one(self) -> "StructuredOutputs":
        given = [self.json_, self.regex, self.choice, self.grammar, self.json_object or None]
        if sum(one is not None for one in given) != 1:
            raise ValueError("give exactly one of json, regex, choice, grammar, json_object")
        return self


class SamplingBody(_Body):
    """What chat and completions have in common."""

    model: Annotated[str, Field(max_length=512)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] = 0
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=1 << 31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    stop_token_ids: Annotated[list[int], Field(max_length=64)] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    seed: Annotated[int, Field(ge=-SEED_LIMIT, lt=SEED_LIMIT)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    logit_bias: (
        Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=1024)]
        | None
    ) = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    structured_outputs: StructuredOutputs | None = None
    response_format: ResponseFormat | None = None
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    cache_salt: Annotated[str, Field(max_length=256)] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None

    @model_validator(mode="after")
    def _together(self) -> "SamplingBody":
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only allowed with stream")
        for token in self.logit_bias or {}:
            if not token.isascii() or not token.isdigit() or len(token) > 9:
                raise ValueError(f"logit_bias: {token[:32]!r} is no token id")
        self.grammar()
        return self

    def stops(self) -> list[str]:
        """Stop sequences as a list."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])

    def grammar(self) -> Grammar | None:
        """What the output must match. Raises ValueError if it is too large."""
        found = self._grammar()
        if found is not None and len(found.text) > MAX_SCHEMA:
            raise ValueError(f"a schema of {len(found.text)} characters is over {MAX_SCHEMA}")
        return found

    def _grammar(self) -> Grammar | None:
        outputs, form = self.structured_outputs, self.response_format
        if outputs is not None:
            if outputs.json_ is not None:
                return Grammar("json_schema", json.dumps(outputs.json_))
            if outputs.regex is not None:
                return Grammar("regex", outputs.regex)
            if outputs.choice is not None:
                return Grammar("choice", json.dumps(outputs.choice))
            if outputs.grammar is not None:
                return Grammar("lark", outputs.grammar)
            return Grammar("json_object", "")
        if form is None or form.type == "text":
            return None
        if form.type == "json_object" or form.json_schema is None:
            return Grammar("json_object", "")
        return Grammar("json_schema", json.dumps(form.json_schema.schema_))


class CompletionBody(SamplingBody):
    """POST /v1/completions."""

    prompt: (
        Text
        | TokenIds
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_PROMPTS)]
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS)]
    )
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class ContentPart(_Body):
    """A piece of a message; only text is understood."""

    type: Literal["text"]
    text: Text


class FunctionCall(_Body):
    """A call that the model made earlier."""

    name: Annotated[str, Field(max_length=256)]
    arguments: Text = "{}"


class ToolCall(_Body):
    """A call with its id."""

    id: Annotated[str, Field(max_length=256)] = ""
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(_Body):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[ContentPart], Field(max_length=1024)] | None = None
    name: Annotated[str, Field(max_length=256)] | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=128)] | None = None
    tool_call_id: Annotated[str, Field(max_length=256)] | None = None

    def plain(self) -> dict[str, Any]:
        """As templates expect it: content as one string."""
        content = self.content
        if isinstance(content, list):
            content = "".join(part.text for part in content)
        fields = self.model_dump(exclude_none=True)
        return {**fields, "content": content or ""}


class Function(_Body):
    """What a model may call."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_.-]+$")]
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Body):
    """A function in its wrapper."""

    type: Literal["function"]
    function: Function


class NamedFunction(_Body):
    """The name of a function."""

    name: str


class NamedTool(_Body):
    """The function that must be called."""

    type: Literal["function"]
    function: NamedFunction


class ChatBody(SamplingBody):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "ChatBody":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if isinstance(self.tool_choice, NamedTool):
            names = [tool.function.name for tool in self.tools or []]
            if self.tool_choice.function.name not in names:
                raise ValueError(
                    f"tool_choice names {self.tool_choice.function.name!r}, which is not in tools"
                )
        if self.tool_choice == "required" and not self.tools:
            raise ValueError("tool_choice required needs tools")
        return self


class EmbeddingBody(_Body):
    """POST /v1/embeddings."""

    model: Annotated[str, Field(max_length=512)] | None = None
    input: (
        Text
        | TokenIds
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_PROMPTS)]
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS)]
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1, le=1 << 16)] | None = None


class TokenizeBody(_Body):
    """POST /tokenize: a text or a conversation."""

    prompt: Text | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)] | None = None
    add_special_tokens: bool = True

    @model_validator(mode="after")
    def _one(self) -> "TokenizeBody":
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        return self


class DetokenizeBody(_Body):
    """POST /detokenize."""

    tokens: Annotated[list[Annotated[int, Field(ge=0, lt=1 << 31)]], Field(max_length=1 << 20)]


class AdapterBody(_Body):
    """POST /v1/load_lora_adapter and /v1/unload_lora_adapter."""

    lora_name: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[\w./:-]+$")]
    lora_path: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
