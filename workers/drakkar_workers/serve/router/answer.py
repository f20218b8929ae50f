"""What the router reads of answers as they pass by."""

import re

PROMPT = re.compile(rb'"(?:prompt|input)_tokens":\s*(\d{1,9})')
GENERATED = re.compile(rb'"(?:completion|output)_tokens":\s*(\d{1,9})')
TAIL_BYTES = 8192
"""Usage is at the end of an answer."""
_MARK_BYTES = 16
"""Longer than any of the marks, so that none is missed between two pieces."""


class Stream:
    """Server-sent events: how many, how they ended, what they used."""

    def __init__(self) -> None:
        self.events = 0
        self.done = False
        """``[DONE]`` has come."""
        self.failed = False
        """An event with an error has come."""
        self._tail = b""

    def add(self, piece: bytes) -> None:
        """The next bytes."""
        # A model's own text can't look like this: a line break in it is escaped.
        seen = self._tail[-_MARK_BYTES:]
        joined = seen + piece
        self.events += joined.count(b"data:") - seen.count(b"data:")
        self.done = self.done or b"data: [DONE]" in joined
        self.failed = self.failed or b'data: {"error"' in joined
        self._tail = (self._tail + piece)[-TAIL_BYTES:]

    @property
    def at_line_start(self) -> bool:
        """Whether an event that is added here begins a line of its own."""
        return self._tail[-1:] in (b"", b"\n")

    def usage(self) -> tuple[int, int] | None:
        """Tokens of prompt and answer, if it told them."""
        return usage(self._tail)

    @property
    def tokens(self) -> int:
        """Of the answer, as told, else one per event."""
        told = self.usage()
        return told[1] if told else max(0, self.events - self.done)


def usage(tail: bytes) -> tuple[int, int] | None:
    """Tokens of prompt and answer that the end of an answer tells."""
    prompts, generated = PROMPT.findall(tail), GENERATED.findall(tail)
    if not prompts:
        return None
    # An embedding has no tokens of its own.
    return int(prompts[-1]), int(generated[-1]) if generated else 0
