"""Structured output: which tokens may come next, by llguidance.

A grammar that is wrong, explodes or gets stuck fails the request that brought it, and no other.
"""

import json
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray

from drakkar_workers.serve.engine.request import Grammar

CACHE_SIZE = 64
"""Compiled grammars that are kept, the least recently used one goes first."""


class GrammarError(ValueError):
    """The grammar is invalid, too complex, or met a token that it can't take."""


class Matcher:
    """The state of one sequence."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def mask(self, vocab: int) -> NDArray[np.bool_]:
        """Which tokens may come next, shape (vocab,). Raises GrammarError."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        mask = np.zeros(vocab, np.bool_)
        found = np.unpackbits(bits, bitorder="little")[:vocab]
        mask[: len(found)] = found
        return mask

    def accept(self, token: int) -> None:
        """Go on with a token. Raises GrammarError."""
        self._matcher.consume_token(token)
        self._check()

    @property
    def ended(self) -> bool:
        """Whether nothing may follow but the end."""
        return bool(self._matcher.is_stopped())

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GrammarError(self._matcher.get_error().splitlines()[0][:500])


class Grammars:
    """Compiles grammars in a thread of its own, and keeps them."""

    def __init__(self, tokenizer: str, vocab: int, eos: Sequence[int]) -> None:
        self._text = tokenizer
        self._vocab = vocab
        self._eos = list(eos)
        self._kept: OrderedDict[Grammar, LLMatcher] = OrderedDict()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="grammar")

    def compile(self, grammar: Grammar) -> "Future[Matcher]":
        """A fresh matcher, at some time; the future fails with GrammarError."""
        return self._pool.submit(self._compile, grammar)

    def _compile(self, grammar: Grammar) -> Matcher:
        kept = self._kept.get(grammar)
        if kept is None:
            kept = LLMatcher(self._tokenizer, _source(grammar), log_level=0, limits=_LIMITS)
            if kept.is_error():
                raise GrammarError(kept.get_error().splitlines()[0][:500])
            self._kept[grammar] = kept
            if len(self._kept) > CACHE_SIZE:
                self._kept.popitem(last=False)
        self._kept.move_to_end(grammar)
        return Matcher(kept.deep_copy())

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        # About a second: only who asks for structure waits for it.
        return LLTokenizer(self._text, n_vocab=self._vocab, eos_token=self._eos)


# Models that may write any white space sometimes write nothing else.
_JSON: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_LIMITS = LLParserLimits(
    max_items_in_row=2000,
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=200_000,
    step_max_items=50_000,
    max_lexer_states=50_000,
    max_grammar_size=500_000,
)


def _source(grammar: Grammar) -> str:
    try:
        match grammar.kind:
            case "json_schema":
                return LLMatcher.grammar_from_json_schema(grammar.text, defaults=_JSON)
            case "json_object":
                return LLMatcher.grammar_from_json_schema('{"type": "object"}', defaults=_JSON)
            case "regex":
                return LLMatcher.grammar_from_regex(grammar.text)
            case "lark":
                return LLMatcher.grammar_from_lark(grammar.text)
            case "choice":
                choices = " | ".join(json.dumps(choice) for choice in json.loads(grammar.text))
                return LLMatcher.grammar_from_lark(f"start: {choices}")
    except ValueError as error:
        raise GrammarError(str(error)[:500]) from None
