"""Text as it grows: token by token, without broken characters and without stop sequences."""

from collections.abc import Sequence

from tokenizers import Tokenizer

UNFINISHED = "\ufffd"
"""What decoders write for the first bytes of a character."""
LONGEST_CHARACTER = 4
CONTEXT = 6
"""Tokens before the new ones that are decoded again: spaces depend on neighbours."""


class Detokenizer:
    """The text of one answer; special tokens are left out."""

    def __init__(
        self, tokenizer: Tokenizer, stops: Sequence[str] = (), *, keep_stop: bool = False
    ) -> None:
        self._tokenizer = tokenizer
        self._stops = tuple(stops)
        self._keep_stop = keep_stop
        self._ids: list[int] = []
        self._start = 0
        """First token of the window that is decoded."""
        self._done = 0
        """Tokens whose text is settled."""
        self._held = ""
        """Text that may be the beginning of a stop sequence."""
        self.stopped: str | None = None
        """The stop sequence that was met."""

    def add(self, ids: Sequence[int]) -> str:
        """Text that is certain now. Nothing follows once ``stopped`` is set."""
        for token in ids:
            if self.stopped is not None:
                break
            self._ids.append(token)
            fresh = self._decode()
            if fresh:
                self._held = self._search(self._held + fresh)
        return self._release(len(self._held) if self.stopped is not None else self._certain())

    def finish(self) -> str:
        """The rest, when no token follows."""
        if self.stopped is None:
            tail = self._window(self._start, len(self._ids))
            settled = self._window(self._start, self._done)
            self._held = self._search(self._held + tail[len(settled) :])
        return self._release(len(self._held))

    def _decode(self) -> str:
        """Text of the tokens that are not settled, once it ends with a whole character."""
        text = self._window(self._start, len(self._ids))
        before = self._window(self._start, self._done)
        waiting = len(self._ids) - self._done
        if text.endswith(UNFINISHED) and waiting < LONGEST_CHARACTER:
            return ""
        if len(text) <= len(before):
            return ""
        self._done = len(self._ids)
        self._start = max(self._start, self._done - CONTEXT)
        # The window's own beginning must not be in the middle of a character.
        while self._start > 0 and self._window(self._start, self._done).startswith(UNFINISHED):
            self._start -= 1
        return text[len(before) :]

    def _window(self, start: int, end: int) -> str:
        text: str = self._tokenizer.decode(self._ids[start:end], skip_special_tokens=True)
        return text

    def _search(self, text: str) -> str:
        """Cut at the first stop sequence."""
        places = [(text.find(stop), stop) for stop in self._stops if stop in text]
        if not places:
            return text
        at, stop = min(places)
        self.stopped = stop
        return text[: at + len(stop)] if self._keep_stop else text[:at]

    def _certain(self) -> int:
        """Length of the held text that can't belong to a stop sequence any more."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return len(self._held) - length
        return len(self._held)

    def _release(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        return text
