"""Which tokens the next step computes: one budget, decodes first, the rest to prompts.

A step takes at most ``max_tokens`` tokens. Sequences that decode come first, since someone reads
along; what is left goes to prompts, in pieces if they are long. When blocks run out, the sequence
that would be served last gives up its blocks and is computed again later.
"""

import heapq
from dataclasses import dataclass, field
from itertools import count

from drakkar_workers.serve.engine.blocks import BlockManager
from drakkar_workers.serve.engine.request import Request
from drakkar_workers.serve.engine.sequence import Sequence


class QueueFullError(RuntimeError):
    """As many requests wait as may wait."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a scheduler may do at once."""

    max_tokens: int = 512
    """Tokens per step."""
    max_sequences: int = 64
    """Sequences that hold blocks."""
    max_waiting: int = 1024


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens of one sequence in a step: ``count`` known ones, then its drafts."""

    sequence: Sequence
    start: int
    """Position of the first one."""
    count: int
    drafts: int = 0

    @property
    def tokens(self) -> int:
        """All tokens that are computed."""
        return self.count + self.drafts

    @property
    def samples(self) -> bool:
        """Whether it reaches the end of what is known, so that a token follows."""
        return self.start + self.count == len(self.sequence.tokens)


@dataclass(slots=True)
class Plan:
    """One step."""

    pieces: list[Piece] = field(default_factory=list)
    preempted: list[Sequence] = field(default_factory=list)


class Scheduler:
    """Waiting and running sequences, and the step that comes next."""

    def __init__(self, limits: Limits, blocks: BlockManager) -> None:
        if limits.max_tokens < 1 or limits.max_sequences < 1:
            raise ValueError("a step must have room for a sequence and a token")
        self.limits = limits
        self.blocks = blocks
        self.running: list[Sequence] = []
        """In the order of service."""
        self.preemptions = 0
        self._waiting: list[tuple[tuple[int, float, str], int, Sequence]] = []
        # Breaks ties with stale entries of the same id, as sequences can't be compared.
        self._entries = count()
        self._by_id: dict[str, Sequence] = {}

    @property
    def waiting(self) -> int:
        """Sequences that hold no blocks yet, or gave them up."""
        return len(self._by_id) - len(self.running)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._by_id

    def find(self, request_id: str) -> Sequence | None:
        """A sequence that has not finished."""
        return self._by_id.get(request_id)

    def add(self, request: Request) -> Sequence:
        """Let a request wait for its turn. Raises QueueFullError, or ValueError if it never fits."""
        if request.id in self._by_id:
            raise ValueError(f"request {request.id} is being served already")
        if not request.prompt:
            raise ValueError("the prompt has no tokens")
        capacity = self.blocks.count * self.blocks.size
        longest = len(request.prompt) + (0 if request.embed else request.sampling.max_tokens)
        if longest > capacity:
            raise ValueError(f"{longest} tokens do not fit the cache of {capacity} tokens")
        if self.waiting >= self.limits.max_waiting:
            raise QueueFullError(f"{self.limits.max_waiting} requests wait already")
        sequence = Sequence.of(request)
        self._by_id[request.id] = sequence
        self._wait(sequence)
        return sequence

    def queued(self) -> list[Sequence]:
        """Sequences that wait, in no order."""
        return [entry[-1] for entry in self._waiting if self._alive(entry[-1])]

    def plan(self) -> Plan:
        """The next step; blocks for all its tokens are held when this returns."""
        plan = Plan()
        budget = self._decode(plan, self.limits.max_tokens)
        budget = self._continue_prompts(plan, budget)
        if not plan.preempted:
            self._admit(plan, budget)
        assert plan.pieces or not self.running, "a step must make progress"
        return plan

    def computed(self, piece: Piece, accepted: int = 0) -> None:
        """Note that a piece's tokens, and that many of its drafts, have keys and values.

        Accepted drafts must be among the sequence's tokens already.
        """
        sequence = piece.sequence
        sequence.computed = piece.start + piece.count + accepted
        sequence.drafts = []
        self.blocks.publish(sequence)

    def finish(self, sequence: Sequence) -> None:
        """Let a sequence go, wherever it is."""
        if self._by_id.pop(sequence.request.id, None) is not sequence:
            raise ValueError(f"request {sequence.request.id} is not being served")
        if sequence.blocks or sequence in self.running:
            self.blocks.release(sequence)
            self.running.remove(sequence)
        # One that waits leaves a stale entry in the heap, which admission drops.
        self._compact()

    def check(self) -> None:
        """Raise AssertionError unless everything fits together."""
        self.blocks.check(self.running)
        assert self.running == sorted(self.running, key=lambda s: s.key), "order of service is lost"
        live = {id(entry[-1]) for entry in self._waiting if self._alive(entry[-1])}
        assert len(live) == self.waiting, "a request is lost"
        if self.idle:
            assert self.blocks.free == self.blocks.count, "a block is lost"

    def _decode(self, plan: Plan, budget: int) -> int:
        for sequence in list(self.running):
            if sequence.pending != 1 or budget == 0 or sequence not in self.running:
                continue
            drafts = min(len(sequence.drafts), budget - 1)
            if drafts and not self.blocks.grow(sequence, len(sequence.tokens) + drafts):
                drafts = 0  # A guess is worth no one's blocks.
            del sequence.drafts[drafts:]
            if self._hold(plan, sequence, len(sequence.tokens)):
                plan.pieces.append(Piece(sequence, sequence.computed, 1, drafts))
                budget -= 1 + drafts
        return budget

    def _continue_prompts(self, plan: Plan, budget: int) -> int:
        for sequence in list(self.running):
            if sequence.pending < 2 or budget == 0 or sequence not in self.running:
                continue
            tokens = min(sequence.pending, budget)
            if self._hold(plan, sequence, sequence.computed + tokens):
                plan.pieces.append(Piece(sequence, sequence.computed, tokens))
                budget -= tokens
        return budget

    def _admit(self, plan: Plan, budget: int) -> None:
        deferred = []
        while self._waiting and budget > 0 and len(self.running) < self.limits.max_sequences:
            entry = heapq.heappop(self._waiting)
            sequence = entry[-1]
            if not self._alive(sequence):
                continue
            if self._should_follow(sequence):
                deferred.append(entry)
                continue
            prefix = self.blocks.cached_prefix(sequence)
            # Room for the whole of it, so that prompts do not push each other out halfway.
            need = -(-len(sequence.tokens) // self.blocks.size) - len(prefix)
            if need > self.blocks.free_without(prefix):
                heapq.heappush(self._waiting, entry)
                break
            self.blocks.admit(sequence, prefix)
            tokens = min(sequence.pending, budget)
            held = self.blocks.grow(sequence, sequence.computed + tokens)
            assert held, "blocks that were counted are gone"
            self._insert(sequence)
            plan.pieces.append(Piece(sequence, sequence.computed, tokens))
            budget -= tokens
        for entry in deferred:
            heapq.heappush(self._waiting, entry)

    def _hold(self, plan: Plan, sequence: Sequence, tokens: int) -> bool:
        """Make room for a sequence; False if it had to give up its own."""
        while not self.blocks.grow(sequence, tokens):
            victim = self.running[-1]
            self._preempt(plan, victim)
            if victim is sequence:
                return False
        return True

    def _preempt(self, plan: Plan, victim: Sequence) -> None:
        self.running.remove(victim)
        plan.pieces = [piece for piece in plan.pieces if piece.sequence is not victim]
        victim.preemptions += 1
        victim.drafts = []
        self.blocks.release(victim)
        self.preemptions += 1
        plan.preempted.append(victim)
        self._wait(victim)

    def _should_follow(self, sequence: Sequence) -> bool:
        leader = self._by_id.get(sequence.request.follows or "")
        return leader is not None and leader.output == 0 and self.blocks.caching

    def _wait(self, sequence: Sequence) -> None:
        heapq.heappush(self._waiting, (sequence.key, next(self._entries), sequence))

    def _insert(self, sequence: Sequence) -> None:
        index = len(self.running)
        while index and self.running[index - 1].key > sequence.key:
            index -= 1
        self.running.insert(index, sequence)

    def _alive(self, sequence: Sequence) -> bool:
        return self._by_id.get(sequence.request.id) is sequence

    def _compact(self) -> None:
        if len(self._waiting) > 2 * self.waiting + 64:
            self._waiting = [entry for entry in self._waiting if self._alive(entry[-1])]
            heapq.heapify(self._waiting)
