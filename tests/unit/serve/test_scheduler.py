"""Which tokens a step computes."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from drakkar_workers.serve.engine.blocks import BlockManager
from drakkar_workers.serve.engine.request import Request, Sampling
from drakkar_workers.serve.engine.scheduler import Limits, QueueFullError, Scheduler


def scheduler(blocks=16, size=4, **limits):
    return Scheduler(
        Limits(**{"max_tokens": 8, "max_sequences": 4, **limits}), BlockManager(blocks, size)
    )


def request(name, prompt=4, max_tokens=8, **fields):
    tokens = list(range(prompt)) if isinstance(prompt, int) else prompt
    return Request(id=name, prompt=tokens, sampling=Sampling(max_tokens=max_tokens), **fields)


def step(one, token=99):
    """Compute the next plan as a model would; ids and token counts of its pieces."""
    plan = one.plan()
    for piece in plan.pieces:
        if piece.samples:
            piece.sequence.tokens.append(token)
        one.computed(piece)
    return [(piece.sequence.request.id, piece.count) for piece in plan.pieces]


def test_a_long_prompt_goes_in_pieces_beside_decodes():
    one = scheduler()
    one.add(request("a", 3))
    assert step(one) == [("a", 3)]
    one.add(request("b", list(range(50, 70))))
    assert step(one) == [("a", 1), ("b", 7)]
    assert step(one) == [("a", 1), ("b", 7)]
    assert step(one) == [("a", 1), ("b", 6)]
    assert step(one) == [("a", 1), ("b", 1)]


def test_priority_goes_before_arrival():
    one = scheduler(max_sequences=1)
    one.add(request("late", arrival=2.0))
    one.add(request("early", arrival=1.0))
    one.add(request("urgent", arrival=3.0, priority=-1))
    assert step(one) == [("urgent", 4)]
    one.finish(one.find("urgent"))
    assert step(one) == [("early", 4)]


def test_the_newest_gives_up_its_blocks_and_continues_later():
    one = scheduler(blocks=4, size=4, max_tokens=16)
    one.add(request("old", [1] * 7, max_tokens=9, arrival=1.0))
    one.add(request("new", [2] * 7, max_tokens=9, arrival=2.0))
    assert step(one) == [("old", 7), ("new", 7)]
    assert step(one) == [("old", 1), ("new", 1)]
    assert step(one) == [("old", 1)]
    assert (one.preemptions, one.waiting) == (1, 1)
    one.finish(one.find("old"))
    # One full block of it is still cached.
    assert step(one) == [("new", 5)]
    one.check()


def test_a_prompt_waits_until_it_fits_whole():
    one = scheduler(blocks=4, max_tokens=64)
    one.add(request("a", [1] * 9, max_tokens=1))
    one.add(request("b", [2] * 9, max_tokens=1))
    assert step(one) == [("a", 9)]
    assert one.waiting == 1


def test_one_of_the_same_prompt_follows_once_it_is_computed():
    one = scheduler(max_tokens=32)
    one.add(request("a-0", 9))
    one.add(request("a-1", 9, follows="a-0"))
    assert step(one) == [("a-0", 9)]
    assert step(one) == [("a-0", 1), ("a-1", 1)]
    assert one.find("a-1").cached == 8


def test_drafts_take_from_the_budget_but_never_from_others_blocks():
    one = scheduler(blocks=4, size=4, max_tokens=4)
    sequence = one.add(request("a", [1] * 4, max_tokens=12))
    step(one)
    sequence.drafts = [5] * 9
    plan = one.plan()
    assert (plan.pieces[0].count, plan.pieces[0].drafts) == (1, 3)
    other = scheduler(blocks=2, size=4, max_tokens=16)
    sequence = other.add(request("a", [1] * 7, max_tokens=1))
    step(other)
    sequence.drafts = [5] * 9
    assert other.plan().pieces[0].drafts == 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (request("a", []), "no tokens"),
        (request("a", 4, max_tokens=61), "65 tokens do not fit the cache of 64 tokens"),
    ],
)
def test_what_never_fits_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        scheduler().add(bad)


def test_the_queue_is_bounded_and_ids_are_unique():
    one = scheduler(max_waiting=1)
    one.add(request("a"))
    with pytest.raises(ValueError, match="served already"):
        one.add(request("a"))
    with pytest.raises(QueueFullError):
        one.add(request("b"))


def test_aborting_leaves_nothing():
    one = scheduler(max_sequences=1)
    for name in "abc":
        one.add(request(name))
    step(one)
    for name in "bac":
        one.finish(one.find(name))
    assert (one.idle, one.waiting, one.running) == (True, 0, [])
    one.check()
    one.add(request("b"))
    assert step(one) == [("b", 4)]


class Life(RuleBasedStateMachine):
    """Any order of arrivals, steps and departures keeps the books right and everyone served."""

    def __init__(self):
        super().__init__()
        self.one = scheduler(blocks=9, size=2, max_tokens=5, max_sequences=3, max_waiting=6)
        self.number = 0

    @rule(
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=12),
        max_tokens=st.integers(1, 6),
        priority=st.integers(0, 1),
        adapter=st.sampled_from([None, "x"]),
        follow=st.booleans(),
    )
    def arrive(self, prompt, max_tokens, priority, adapter, follow):
        self.number += 1
        follows = f"r{self.number - 1}" if follow else None
        extra = {"priority": priority, "adapter": adapter, "follows": follows}
        one = request(f"r{self.number}", prompt, max_tokens, arrival=float(self.number), **extra)
        if self.one.waiting >= 6:
            with pytest.raises(QueueFullError):
                self.one.add(one)
        else:
            self.one.add(one)

    @rule(token=st.integers(0, 1), drafts=st.integers(0, 3), accept=st.integers(0, 3))
    def step(self, token, drafts, accept):
        for sequence in self.one.running:
            left = sequence.request.sampling.max_tokens - sequence.output - 1
            sequence.drafts = [token] * min(drafts, max(0, left)) if sequence.pending == 1 else []
        plan = self.one.plan()
        assert sum(piece.tokens for piece in plan.pieces) <= 5
        assert len({id(piece.sequence) for piece in plan.pieces}) == len(plan.pieces)
        if self.one.running:
            assert plan.pieces[0].sequence.blocks
        for piece in plan.pieces:
            assert len(piece.sequence.blocks) * 2 >= piece.start + piece.tokens
            assert piece.start == piece.sequence.computed
            taken = min(accept, piece.drafts)
            if piece.samples:
                piece.sequence.tokens.extend([token] * (taken + 1))
            self.one.computed(piece, taken)
            if piece.sequence.output >= piece.sequence.request.sampling.max_tokens:
                self.one.finish(piece.sequence)

    @precondition(lambda self: not self.one.idle)
    @rule(data=st.data())
    def leave(self, data):
        name = data.draw(st.sampled_from(sorted(self.one._by_id)))
        self.one.finish(self.one.find(name))

    @invariant()
    def books_are_right(self):
        self.one.check()

    def teardown(self):
        for _ in range(2000):
            if self.one.idle:
                break
            self.step(1, 0, 0)
        assert self.one.idle, "somebody is never served"
        self.one.check()


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
