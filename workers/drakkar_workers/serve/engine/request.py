"""What enters and leaves an engine: plain data that also travels between processes."""

from typing import Literal

import msgspec

FinishReason = Literal["stop", "length", "abort", "error"]


class Grammar(msgspec.Struct, frozen=True):
    """What the output must match."""

    kind: Literal["json_schema", "json_object", "regex", "lark", "choice"]
    text: str
    """The schema as JSON, the regular expression, the Lark grammar, or a JSON list of strings."""


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How tokens are drawn; the server has checked all ranges."""

    max_tokens: int = 16
    min_tokens: int = 0
    temperature: float = 1.0
    """0 is greedy."""
    top_k: int = 0
    """0 keeps all."""
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    seed: int = 0
    """Draw number i is a function of this and i alone."""
    logprobs: int | None = None
    """How many of the likeliest tokens are returned beside each sampled one."""
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    grammar: Grammar | None = None

    @property
    def penalised(self) -> bool:
        """Whether logits depend on the tokens so far."""
        return (
            self.repetition_penalty != 1.0
            or self.presence_penalty != 0.0
            or self.frequency_penalty != 0.0
        )


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence to generate, or one text to embed."""

    id: str
    prompt: list[int]
    sampling: Sampling = Sampling()
    priority: int = 0
    """Lower goes first."""
    arrival: float = 0.0
    """Seconds of a clock of the caller; the order among equals."""
    adapter: str | None = None
    salt: str = ""
    """Only requests with the same salt share cached prefixes."""
    follows: str | None = None
    """A request with the same prompt: this one waits until that prompt is computed."""
    embed: bool = False
    """Return the mean of the hidden states instead of tokens."""
    prompt_logprobs: int | None = None
    """How many of the likeliest tokens are returned beside each token of the prompt; None: nothing."""

    @property
    def reads_all(self) -> bool:
        """Whether every position must be computed, whatever is in the prefix cache."""
        return self.embed or self.prompt_logprobs is not None


class Logprob(msgspec.Struct, frozen=True, array_like=True):
    """A sampled token and the likeliest ones, by the model's own distribution, in nats."""

    value: float
    top: list[tuple[int, float]]


class Output(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one step adds to a request."""

    id: str
    tokens: list[int] = []
    logprobs: list[Logprob] = []
    finish: FinishReason | None = None
    stopped_by: int | None = None
    """The stop or end token, which is not among ``tokens``' text."""
    prompt_logprobs: list[Logprob] = []
    """Of the prompt's tokens from the second on; with the first token of the answer."""
    cached: int = 0
    """Prompt tokens that came from the prefix cache."""
    queued: float = 0.0
    """Seconds from arrival to the first step; with the first token."""
    embedding: list[float] = []
    error: str = ""
