"""A request on its way through the engine."""

from dataclasses import dataclass, field

from drakkar_workers.serve.engine.request import Request


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens, how far their keys and values are computed, and the blocks that hold them.

    Invariant: ``computed < len(tokens)`` while it can be scheduled, and the blocks cover at least
    ``computed`` tokens.
    """

    request: Request
    tokens: list[int]
    """The prompt, then what was sampled."""
    computed: int = 0
    """Tokens whose keys and values are in the blocks."""
    blocks: list[int] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    """Of the full blocks of ``tokens`` as far as they were needed."""
    published: int = 0
    """Blocks that the prefix cache knows, or need not know."""
    drafts: list[int] = field(default_factory=list)
    """Guesses of the next tokens, to be checked in the next step."""
    cached: int = 0
    """Prompt tokens that the cache had at the first admission."""
    preemptions: int = 0
    admitted: float | None = None
    """When it was first scheduled, by the caller's clock."""

    @classmethod
    def of(cls, request: Request) -> "Sequence":
        """A sequence that has computed nothing."""
        return cls(request, list(request.prompt))

    @property
    def key(self) -> tuple[int, float, str]:
        """The order of service: priority, then arrival."""
        return (self.request.priority, self.request.arrival, self.request.id)

    @property
    def pending(self) -> int:
        """Known tokens without keys and values; 1 while decoding."""
        return len(self.tokens) - self.computed

    @property
    def output(self) -> int:
        """How many tokens were sampled."""
        return len(self.tokens) - len(self.request.prompt)
