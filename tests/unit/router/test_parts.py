"""The small pure parts of the router: prefixes, breaker, turns, answers, figures, load."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drakkar.routing import SAMPLES
from drakkar_workers.serve.router.answer import Stream, usage
from drakkar_workers.serve.router.circuit import FAILURES, FIRST_REST, LONGEST_REST, Circuit
from drakkar_workers.serve.router.fairness import OUTPUT_WEIGHT, Turns
from drakkar_workers.serve.router.figures import Figures, parse
from drakkar_workers.serve.router.prefix import BLOCK_CHARACTERS, Seen, blocks
from drakkar_workers.serve.router.question import read
from drakkar_workers.serve.router.record import Load

TEXT = "x" * (BLOCK_CHARACTERS * 3)


# Prefixes


def test_prompts_share_the_blocks_before_their_first_difference():
    one, other = blocks("m", TEXT + "a" * 64), blocks("m", TEXT + "b" * 64)
    assert one[:3] == other[:3]
    assert one[3] != other[3]


def test_equal_blocks_at_other_places_are_others():
    assert len(set(blocks("m", TEXT))) == 3


def test_models_and_salts_share_nothing():
    assert not set(blocks("m", TEXT)) & set(blocks("n", TEXT))


def test_half_a_surrogate_is_no_obstacle():
    assert blocks("m", "\ud800" * 64)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), max_size=30), st.integers(1, 12))
def test_what_is_remembered_of_a_chain_is_its_beginning(sent, capacity):
    seen = Seen(capacity)
    chains = [blocks(str(kind), TEXT * 2) for kind in range(4)]
    for kind, length in sent:
        seen.add(chains[kind][:length])
    assert len(seen) <= capacity
    for chain in chains:
        has = [seen.matched([block]) for block in chain]
        assert has == sorted(has, reverse=True)
        assert seen.matched(chain) == sum(has)
    if sent:
        kind, length = sent[-1]
        assert seen.matched(chains[kind]) >= min(length, capacity)


# Questions


def ask(body, **more):
    fields = {"authorization": None, "session": None, "chance": random.Random(0), **more}
    return read(body, **fields)


@pytest.mark.parametrize(
    "body", [b"", b"hello", b"[1]", b"null", b'{"prompt": 5}', b'{"messages": [5, null, {}]}',
             b'{"prompt": [[1, 2], "x", null]}', b'{"model": 5, "cache_salt": []}', b"\xff"],
)  # fmt: skip
def test_a_body_that_makes_no_sense_is_the_engines_matter(body):
    assert ask(body).chain == []


def test_a_conversation_that_goes_on_begins_as_before():
    first = b'{"messages": [{"role": "system", "content": "%s"}]}' % (b"y" * 200)
    later = first[:-2] + b', {"role": "user", "content": "hi"}]}'
    chain = ask(first).chain
    assert len(chain) == 3
    assert ask(later).chain[:3] == chain


def test_token_ids_are_compared_too():
    one, other = ask(b'{"prompt": [1, 2, 3%s]}' % (b", 100000" * 61)), ask(b'{"prompt": [1]}')
    assert (len(one.chain), other.chain) == (4, [])


def test_a_session_draws_the_same_each_time():
    chance = random.Random(0)
    draws = {ask(b"", session="s", chance=chance).draw for _ in range(5)}
    assert len(draws) == 1
    assert len({ask(b"", chance=chance).draw for _ in range(5)}) == 5


def test_a_key_is_not_kept():
    assert "secret" not in repr(ask(b"", authorization="Bearer secret"))


# Breaker


def test_some_failures_in_a_row_open_it():
    circuit = Circuit()
    for _ in range(FAILURES - 1):
        assert not circuit.failed(0.0)
    assert circuit.failed(0.0)
    assert circuit.state(0.0) == "open"


def test_a_success_in_between_keeps_it_closed():
    circuit = Circuit()
    for _ in range(10):
        circuit.failed(0.0)
        circuit.succeeded()
    assert circuit.state(0.0) == "closed"


def opened():
    circuit = Circuit()
    for _ in range(FAILURES):
        circuit.failed(0.0)
    return circuit


def test_after_its_rest_it_gets_one_trial():
    circuit = opened()
    assert not circuit.lets_through(FIRST_REST / 2)
    assert circuit.lets_through(FIRST_REST)
    circuit.sent(FIRST_REST)
    assert not circuit.lets_through(FIRST_REST)
    circuit.succeeded()
    assert circuit.state(FIRST_REST) == "closed"


def test_rests_grow_with_failed_trials():
    circuit, now, rests = opened(), 0.0, []
    for _ in range(8):
        began = now
        while not circuit.lets_through(now):
            now += 0.5
        rests.append(now - began)
        circuit.sent(now)
        circuit.failed(now)
    assert rests == sorted(rests)
    assert rests[-1] == LONGEST_REST


def test_a_trial_that_tells_nothing_is_followed_by_another():
    circuit = opened()
    circuit.sent(FIRST_REST)
    circuit.unknown()
    assert circuit.lets_through(FIRST_REST)


# Turns


@given(st.lists(st.integers(1, 50), min_size=20, max_size=60), st.integers(0, 3))
def test_two_that_always_wait_are_served_alike(costs, extra):
    """Their services differ by two requests at most (VTC, theorem 4.4)."""
    turns, served = Turns(), {"a": 0.0, "b": 0.0}
    for number, cost in enumerate(costs):
        turns.push("a", (number, cost))
        turns.push("b", (number, 1 + extra))
    # So few that both wait until the end.
    for _ in costs[1:]:
        client, item = turns.next()
        turns.remove(client, item)
        turns.charge(client, prompt=item[1])
        served[client] += item[1]
    assert abs(served["a"] - served["b"]) <= 2 * 50


def test_a_flood_does_not_keep_others_waiting():
    turns = Turns()
    for number in range(100):
        turns.push("flood", number)
    client, item = turns.next()
    turns.remove(client, item)
    turns.charge(client, prompt=10)
    turns.push("other", 1000)
    turns.charge("flood", generated=1)
    assert turns.next() == ("other", 1000)


def test_who_was_away_has_not_saved_up_turns():
    turns = Turns()
    for number in range(10):
        turns.push("a", number)
    for _ in range(9):
        client, item = turns.next()
        turns.remove(client, item)
        turns.charge(client, generated=100)
    for number in range(10):
        turns.push("b", 100 + number)
    order = []
    for _ in range(2):
        client, item = turns.next()
        turns.remove(client, item)
        turns.charge(client, generated=100)
        order.append(client)
    assert sorted(order) == ["a", "b"], "b goes before a at most once"


def test_what_comes_out_costs_more():
    turns = Turns()
    turns.push("a", 1)
    turns.push("b", 2)
    turns.charge("a", generated=1)
    turns.charge("b", prompt=OUTPUT_WEIGHT - 0.5)
    assert turns.next() == ("b", 2)


# Answers

EVENTS = (
    b'data: {"choices": [{"text": "data: {\\"error\\""}]}\n\n'
    b'data: {"choices": [{"text": "[DONE] \\"prompt_tokens\\": 9"}]}\n\n'
    b'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}}\n\n'
    b"data: [DONE]\n\n"
)


@given(st.lists(st.integers(1, len(EVENTS) - 1), max_size=40))
def test_a_stream_is_read_alike_however_it_is_cut(cuts):
    stream, edges = Stream(), [0, *sorted(set(cuts)), len(EVENTS)]
    for start, end in itertools.pairwise(edges):
        stream.add(EVENTS[start:end])
    assert (stream.done, stream.failed) == (True, False)
    assert stream.usage() == (7, 5)
    assert stream.tokens == 5


def test_an_error_in_a_stream_is_seen():
    stream = Stream()
    stream.add(b'data: {"choices": []}\n\nda')
    stream.add(b'ta: {"error": {}}\n\n')
    assert (stream.failed, stream.done) == (True, False)


def test_without_usage_events_are_counted():
    stream = Stream()
    stream.add(b'data: {"a": 1}\n\ndata: {"a": 2}\n\ndata: [DONE]\n\n')
    assert stream.tokens == 2


def test_usage_of_responses_and_embeddings():
    assert usage(b'"usage":{"input_tokens":3,"output_tokens":4}') == (3, 4)
    assert usage(b'"usage":{"prompt_tokens":3,"total_tokens":3}') == (3, 0)
    assert usage(b"{}") is None


# Figures

PAGE = """
# HELP vllm:num_requests_running x
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} 4.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.5
vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1.0
vllm:lora_requests_info{max_lora="4",running_lora_adapters="",waiting_lora_adapters="old"} 1e9
vllm:lora_requests_info{max_lora="4",running_lora_adapters="a,b",waiting_lora_adapters="c"} 1.1e9
"""


def test_figures_of_vllm():
    assert parse(PAGE) == Figures(5, 4, 0.5, frozenset("abc"), 1600)


def test_figures_of_sglang():
    page = 'sglang:num_running_reqs{a="b"} 2\nsglang:num_queue_reqs 1\nsglang:token_usage 0.25'
    assert parse(page) == Figures(2, 1, 0.25)


@pytest.mark.parametrize("value", ["", "x", "NaN", "+Inf", "1e300"])
def test_what_cant_be_read_is_left_out(value):
    assert parse(f"vllm:num_requests_waiting {value}") == Figures()


@given(st.text(max_size=200))
def test_no_page_breaks_it(text):
    parse("vllm:kv_cache_usage_perc" + text + "\n" + text)


# Load


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_concurrency_is_averaged_over_a_seconds_time():
    clock = Clock()
    load = Load(clock)
    clock.now += 0.25
    load.add(2)
    clock.now += 0.5
    load.add(-1)
    clock.now += 1.25
    samples = load.samples()
    assert [(one.second, one.concurrency, one.arrived) for one in samples] == [
        (1000, pytest.approx(2 * 0.5 + 0.25), 2),
        (1001, pytest.approx(1.0), 0),
    ]


@given(st.lists(st.tuples(st.floats(0, 300), st.integers(-3, 3)), max_size=30))
def test_seconds_have_no_gaps_and_no_more_than_was_there(steps):
    clock = Clock()
    load, most = Load(clock), 0
    for pause, change in steps:
        clock.now += pause
        if load.level + change >= 0:
            load.add(change)
        most = max(most, load.level)
    seconds = [one.second for one in load.samples()]
    assert len(seconds) <= SAMPLES
    assert seconds == list(range(seconds[0], seconds[0] + len(seconds))) if seconds else True
    assert all(0 <= one.concurrency <= most + 1e-6 for one in load.samples())


def test_a_clock_that_is_set_back_breaks_nothing():
    clock = Clock()
    load = Load(clock)
    load.add(1)
    clock.now -= 500
    load.add(1)
    clock.now += 501
    assert load.samples()[-1].second == 1000
