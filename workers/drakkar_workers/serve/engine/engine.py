"""The engine: requests in, one step at a time, tokens out. It knows no threads and no network."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from drakkar_workers.errors import ConfigError
from drakkar_workers.serve.engine.grammar import GrammarError, Grammars, Matcher
from drakkar_workers.serve.engine.request import FinishReason, Logprob, Output, Request
from drakkar_workers.serve.engine.sampling import Row, sample
from drakkar_workers.serve.engine.scheduler import Piece, QueueFullError, Scheduler
from drakkar_workers.serve.engine.sequence import Sequence
from drakkar_workers.serve.engine.speculate import Ngrams
from drakkar_workers.serve.model.lora import load_adapter
from drakkar_workers.serve.model.runner import Runner

MAX_ADAPTERS = 32
CHECK_EVERY = 64
"""Times idle between two checks of the books."""


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Figures as of now; counts are since the start."""

    running: int
    waiting: int
    cache_usage: float
    prefix_queries: int
    prefix_hits: int
    preemptions: int
    drafted: int
    accepted: int
    steps: int
    running_adapters: list[str]
    waiting_adapters: list[str]


@dataclass(slots=True)
class _State:
    """What the engine keeps beside a sequence."""

    matcher: Matcher | None
    ngrams: Ngrams | None
    stops: frozenset[int]
    scores: list[Logprob] = field(default_factory=list)
    """Of the prompt's tokens from the second on, as far as they are computed."""


class Engine:
    """Owns scheduler and runner. All methods must be called from one thread."""

    def __init__(
        self,
        scheduler: Scheduler,
        runner: Runner,
        grammars: Grammars,
        *,
        max_length: int,
        speculative_tokens: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.scheduler = scheduler
        self.runner = runner
        self.max_length = max_length
        self._grammars = grammars
        self._speculative = speculative_tokens
        self._clock = clock
        self._eos = frozenset(runner.decoder.config.eos_ids)
        self._states: dict[str, _State] = {}
        self._compiling: dict[str, tuple[Request, Future[Matcher]]] = {}
        self._drafted = self._accepted = self._steps = self._idled = 0

    @property
    def idle(self) -> bool:
        """Whether a step would do nothing."""
        return self.scheduler.idle and not self._compiling

    @property
    def compiling(self) -> bool:
        """Whether all that is left to do is to wait for grammars."""
        return self.scheduler.idle and bool(self._compiling)

    def add(self, request: Request) -> None:
        """Take a request. Raises QueueFullError, or ValueError if it can't be served."""
        self._check(request)
        if request.sampling.grammar is None:
            self._admit(request, None)
            return
        limit = self.scheduler.limits.max_waiting
        if len(self._compiling) + self.scheduler.waiting >= limit:
            raise QueueFullError(f"{limit} requests wait already")
        future = self._grammars.compile(request.sampling.grammar)
        self._compiling[request.id] = (request, future)

    def abort(self, request_id: str) -> None:
        """Drop a request, whatever its state; unknown ones have ended already."""
        compiling = self._compiling.pop(request_id, None)
        if compiling is not None:
            compiling[1].cancel()
        sequence = self.scheduler.find(request_id)
        if sequence is not None:
            self._finish(sequence)

    def step(self) -> list[Output]:
        """Compute one step; what it adds to requests."""
        outputs = self._collect_grammars()
        plan = self.scheduler.plan()
        for victim in plan.preempted:
            self.runner.forget(victim)
        if not plan.pieces:
            self._idled += 1
            if self._idled % CHECK_EVERY == 1 and self.scheduler.idle:
                self.scheduler.check()
            return outputs
        now = self._clock()
        for piece in plan.pieces:
            if piece.sequence.admitted is None:
                piece.sequence.admitted = now
        rows, failed = self._rows(plan.pieces)
        result = self.runner.run(plan.pieces)
        self._steps += 1
        tokens: list[int] = []
        logprobs: list[Logprob | None] = []
        if result.logits is not None:
            tokens, logprobs = sample(result.logits, rows)
        at = 0
        for piece in plan.pieces:
            request = piece.sequence.request
            if request.id in result.scores:
                scores = self._states[request.id].scores
                # After a preemption the prompt is computed again.
                scores += result.scores[request.id][len(scores) - piece.start :]
            if request.embed:
                self.scheduler.computed(piece)
                if piece.samples:
                    self._finish(piece.sequence)
                    outputs.append(
                        Output(
                            id=request.id, embedding=result.embeddings[request.id], finish="stop"
                        )
                    )
            elif not piece.samples:
                self.scheduler.computed(piece)
            else:
                count = 1 + piece.drafts
                row = slice(at, at + count)
                at += count
                if request.id in failed:
                    self._finish(piece.sequence)
                    outputs.append(_error(request.id, failed[request.id]))
                else:
                    outputs.append(self._advance(piece, tokens[row], logprobs[row]))
        return outputs

    def load_adapter(self, name: str, folder: Path) -> None:
        """Read a LoRA adapter. Raises ConfigError."""
        decoder = self.runner.decoder
        if name in decoder.adapters:
            raise ConfigError(f"adapter {name} is loaded already; unload it first")
        if len(decoder.adapters) >= MAX_ADAPTERS:
            raise ConfigError(f"{MAX_ADAPTERS} adapters are loaded; unload one first")
        decoder.adapters[name] = load_adapter(folder, decoder.config, decoder.backend.device)
        # Another adapter may have had this name.
        self.scheduler.blocks.reset()

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter. Raises ConfigError if it is unknown or serves requests."""
        decoder = self.runner.decoder
        if name not in decoder.adapters:
            raise ConfigError(f"adapter {name} is not loaded")
        stats = self.stats()
        if name in (*stats.running_adapters, *stats.waiting_adapters):
            raise ConfigError(f"adapter {name} serves requests; unload it when they have ended")
        del decoder.adapters[name]

    def stats(self) -> Stats:
        """For metrics and routing."""
        scheduler, blocks = self.scheduler, self.scheduler.blocks
        running = {s.request.adapter for s in scheduler.running}
        waiting = {s.request.adapter for s in scheduler.queued()}
        waiting |= {request.adapter for request, _future in self._compiling.values()}
        return Stats(
            running=len(scheduler.running),
            waiting=scheduler.waiting + len(self._compiling),
            cache_usage=blocks.usage,
            prefix_queries=blocks.queries,
            prefix_hits=blocks.hits,
            preemptions=scheduler.preemptions,
            drafted=self._drafted,
            accepted=self._accepted,
            steps=self._steps,
            running_adapters=sorted(name for name in running if name is not None),
            waiting_adapters=sorted(name for name in waiting if name is not None),
        )

    def _check(self, request: Request) -> None:
        if request.id in self._compiling:
            raise ValueError(f"request {request.id} is being served already")
        vocab = self.runner.decoder.config.vocab
        if any(not 0 <= token < vocab for token in request.prompt):
            raise ValueError(f"a prompt token is not from 0 to {vocab - 1}")
        if any(not 0 <= token < vocab for token in request.sampling.logit_bias):
            raise ValueError(f"a token of logit_bias is not from 0 to {vocab - 1}")
        longest = len(request.prompt) + (0 if request.embed else request.sampling.max_tokens)
        if longest > self.max_length:
            raise ValueError(f"{longest} tokens are more than the model's {self.max_length}")
        if request.adapter is not None and request.adapter not in self.runner.decoder.adapters:
            raise ValueError(f"adapter {request.adapter} is not loaded")

    def _admit(self, request: Request, matcher: Matcher | None) -> None:
        self.scheduler.add(request)
        sampling = request.sampling
        # Guesses can't be checked against a grammar or penalties that depend on each other.
        guesses = self._speculative and matcher is None and not sampling.penalised
        stops = frozenset(sampling.stop_token_ids)
        if not sampling.ignore_eos:
            stops |= self._eos
        ngrams = Ngrams() if guesses and not request.embed else None
        self._states[request.id] = _State(matcher, ngrams, stops)

    def _collect_grammars(self) -> list[Output]:
        outputs = []
        for request_id, (request, future) in list(self._compiling.items()):
            if not future.done():
                continue
            del self._compiling[request_id]
            try:
                self._admit(request, future.result())
            except (GrammarError, ValueError, RuntimeError) as error:
                outputs.append(_error(request_id, f"grammar: {error}"))
        return outputs

    def _rows(self, pieces: list[Piece]) -> tuple[list[Row], dict[str, str]]:
        """What the rows of logits are sampled with, and the requests whose grammar got stuck."""
        rows: list[Row] = []
        failed: dict[str, str] = {}
        for piece in pieces:
            sequence, request = piece.sequence, piece.sequence.request
            if not piece.samples or request.embed:
                continue
            state, sampling, done = self._states[request.id], request.sampling, sequence.output
            output = sequence.tokens[len(request.prompt) :] if sampling.penalised else ()
            mask = None
            if state.matcher is not None:
                try:
                    mask = state.matcher.mask(self.runner.decoder.config.vocab)
                except GrammarError as error:
                    failed[request.id] = f"grammar: {error}"
            for number in range(done, done + 1 + piece.drafts):
                early = number < sampling.min_tokens
                forbidden = tuple(state.stops | self._eos) if early else ()
                rows.append(Row(sampling, number, request.prompt, output, mask, forbidden))
        return rows, failed

    def _advance(self, piece: Piece, tokens: list[int], logprobs: list[Logprob | None]) -> Output:
        """Take sampled tokens as far as the drafts before them were right."""
        sequence, request = piece.sequence, piece.sequence.request
        state = self._states[request.id]
        first = sequence.output == 0
        taken: list[int] = []
        found: list[Logprob] = []
        finish: FinishReason | None = None
        stopped_by = None
        error = ""
        for index, (token, logprob) in enumerate(zip(tokens, logprobs, strict=True)):
            sequence.tokens.append(token)
            taken.append(token)
            if logprob is not None:
                found.append(logprob)
            if token in state.stops:
                finish, stopped_by = "stop", token
            elif state.matcher is not None:
                finish, error = _follow(state.matcher, token)
            if finish is None and sequence.output >= request.sampling.max_tokens:
                finish = "length"
            right = index < piece.drafts and sequence.drafts[index] == token
            if finish is not None or not right:
                break
        accepted = len(taken) - 1
        self._drafted += piece.drafts
        self._accepted += accepted
        self.scheduler.computed(piece, accepted)
        if finish is not None:
            self._finish(sequence)
        elif state.ngrams is not None:
            left = request.sampling.max_tokens - sequence.output - 1
            count = min(self._speculative, left)
            sequence.drafts = state.ngrams.propose(sequence.tokens, count) if count > 0 else []
        return Output(
            id=request.id,
            tokens=taken,
            logprobs=found,
            finish=finish,
            stopped_by=stopped_by,
            prompt_logprobs=state.scores if first else [],
            cached=sequence.cached if first else 0,
            queued=(sequence.admitted or 0.0) - request.arrival if first else 0.0,
            error=error,
        )

    def _finish(self, sequence: Sequence) -> None:
        self.scheduler.finish(sequence)
        self.runner.forget(sequence)
        self._states.pop(sequence.request.id, None)


def _follow(matcher: Matcher, token: int) -> tuple[FinishReason | None, str]:
    try:
        matcher.accept(token)
    except GrammarError as error:
        return "error", f"grammar: {error}"
    return ("stop" if matcher.ended else None), ""


def _error(request_id: str, message: str) -> Output:
    return Output(id=request_id, finish="error", error=message)
