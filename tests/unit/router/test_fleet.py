"""What counts at replicas, without sockets."""

import asyncio
import random
from collections import Counter

import pytest

from drakkar.routing import Endpoint, RouteTable
from drakkar_workers.serve.router.figures import Figures
from drakkar_workers.serve.router.fleet import STALE_SECONDS, Fleet
from drakkar_workers.serve.router.prefix import blocks
from drakkar_workers.serve.router.question import Question


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def fleet(clock):
    made = Fleet("u", clock=clock, chance=random.Random(0))
    endpoints = [
        Endpoint(name=f"r{number}", url=f"http://a{number}", revision="1", ready=True)
        for number in range(2)
    ]
    made.apply(RouteTable(service="a/b", uid="u", version=1, endpoints=endpoints))
    return made


def long(name):
    """A prompt of about 1,024 tokens."""
    return Question(chain=blocks(name, "x" * 4096))


def names(fleet, question, count):
    return Counter(fleet.take(question).replica.name for _ in range(count))


def test_a_prompt_that_must_be_computed_counts_as_several_requests(fleet):
    busy = fleet.take(long("a")).replica
    found = names(fleet, Question(), 3)
    assert found[busy.name] == 0


def test_a_prompt_that_is_known_counts_as_one(fleet):
    first = fleet.take(long("a"))
    first.computed()
    second = fleet.take(long("a"))
    assert second.replica is first.replica
    assert second.work == 1


def test_once_its_prompt_is_computed_it_counts_as_one(fleet):
    place = fleet.take(long("a"))
    assert place.replica.work > 4
    place.computed()
    place.computed()
    assert place.replica.work == pytest.approx(1)


def test_nothing_is_left_when_all_have_ended(fleet):
    places = [fleet.take(long(str(number))) for number in range(20)]
    for number, place in enumerate(places):
        if number % 2:
            place.computed()
        fleet.release(place)
    assert [one.work for one in fleet.replicas.values()] == [0, 0]


def test_requests_of_other_routers_count_while_the_figures_are_fresh(fleet, clock):
    busy = fleet.replicas["r0"]
    fleet.heard(busy, Figures(running=20, waiting=0))
    assert names(fleet, Question(), 4) == {"r1": 4}
    clock.now += STALE_SECONDS + 1
    assert fleet.take(Question()).replica is busy


def test_its_own_requests_do_not_count_twice(fleet):
    replica = fleet.replicas["r0"]
    places = [fleet.take(Question()) for _ in range(6)]
    for one in fleet.replicas.values():
        fleet.heard(one, Figures(running=one.in_flight, waiting=0))
    found = names(fleet, Question(), 2)
    assert found == {"r0": 1, "r1": 1}, "loads are alike, so they take turns"
    assert replica.in_flight + fleet.replicas["r1"].in_flight == len(places) + 2


def test_a_replica_with_another_address_is_another_one(fleet):
    before = fleet.replicas["r0"]
    moved = before.endpoint.model_copy(update={"url": "http://elsewhere"})
    before.seen.add([1, 2, 3])

    class Limit:
        ended = False

        def reschedule(self, _when):
            self.ended = True

    limit = Limit()
    before.limits.add(limit)

    async def apply():
        fleet.apply(RouteTable(service="a/b", uid="u", version=2, endpoints=[moved]))

    asyncio.run(apply())
    assert before.gone
    assert limit.ended
    assert fleet.replicas["r0"] is not before
    assert len(fleet.replicas["r0"].seen) == 0
