"""Leader election: one leader at a time, no writes after the right to write is over."""

import asyncio
import random
from functools import partial

import pytest

from drakkar.kube.backoff import Backoff
from drakkar.kube.rest import ApiError
from drakkar_operator.cluster import leader
from drakkar_operator.cluster.leader import Leader, LeaseTimes, NotLeaderError
from support.fake_kube import FakeKube, Fault, MemoryRest, lost_connection

pytestmark = pytest.mark.looptime(start=0)
LEASES = "leases.coordination.k8s.io"
TIMES = LeaseTimes(15.0, 10.0, 2.0)


def now() -> float:
    return asyncio.get_running_loop().time()


def candidate(kube: FakeKube, name: str) -> Leader:
    return Leader(
        MemoryRest(kube),
        namespace="system",
        name="operator",
        identity=name,
        times=TIMES,
        clock=now,
    )


def holder(kube: FakeKube) -> str:
    return kube.get(LEASES, "operator", "system")["spec"]["holderIdentity"]


async def stop(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_first_leads_and_the_second_waits():
    kube = FakeKube()
    a, b = candidate(kube, "a"), candidate(kube, "b")
    tasks = [asyncio.create_task(a.run())]
    await a.acquired()
    tasks.append(asyncio.create_task(b.run()))
    for _ in range(120):
        await asyncio.sleep(1)
        assert (a.leading, b.leading) == (True, False)
    a.check()
    with pytest.raises(NotLeaderError):
        b.check()
    for task in tasks:
        await stop(task)


async def test_a_dead_leader_is_replaced_after_the_lease_ran_out():
    kube = FakeKube()
    a, b = candidate(kube, "a"), candidate(kube, "b")
    first = asyncio.create_task(a.run())
    await a.acquired()
    second = asyncio.create_task(b.run())
    await asyncio.sleep(10)
    await stop(first)
    died = now()
    await b.acquired()
    assert TIMES.duration - 3 <= now() - died <= TIMES.duration + 2 * TIMES.retry
    await stop(second)


async def test_a_released_lease_is_taken_at_the_next_look():
    kube = FakeKube()
    a, b = candidate(kube, "a"), candidate(kube, "b")
    first = asyncio.create_task(a.run())
    await a.acquired()
    second = asyncio.create_task(b.run())
    await asyncio.sleep(5)
    await stop(first)
    await a.release()
    released = now()
    await b.acquired()
    assert now() - released <= 2 * TIMES.retry
    assert not a.leading
    await stop(second)


async def test_a_cut_off_leader_stops_writing_before_its_rival_starts():
    kube = FakeKube()
    a, b = candidate(kube, "a"), candidate(kube, "b")
    cut = MemoryRest(kube)
    a._rest = cut
    first = asyncio.create_task(a.run())
    await a.acquired()
    second = asyncio.create_task(b.run())
    await asyncio.sleep(7)

    async def refuse(*_: object, **__: object) -> None:
        raise lost_connection()

    cut._call = refuse  # type: ignore[method-assign, assignment]
    both = 0
    while not b.leading:
        await asyncio.sleep(0.1)
        both += a.leading and b.leading
    assert both == 0
    assert not a.leading
    with pytest.raises(NotLeaderError):
        a.check()
    await a.lost()
    await stop(first)
    await stop(second)


@pytest.mark.parametrize("seed", range(30))
async def test_a_term_ends_wherever_it_falls_between_two_ticks_of_the_clock(
    seed: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(leader, "Backoff", partial(Backoff, rng=random.Random(seed)))
    kube = FakeKube()
    a = candidate(kube, "a")
    task = asyncio.create_task(a.run())
    await a.acquired()
    await asyncio.sleep(7)
    kube.faults.append(Fault("PUT", "leases", lost_connection(), times=100))
    await a.lost()
    assert not task.done()
    await stop(task)


async def test_a_renewal_that_hangs_does_not_extend_the_term():
    kube = FakeKube()
    a = candidate(kube, "a")
    task = asyncio.create_task(a.run())
    await a.acquired()
    kube.faults.append(Fault("PUT", "leases", delay=1000.0, times=100))
    await asyncio.sleep(TIMES.renew_deadline + TIMES.retry * 2)
    assert not a.leading
    await stop(task)


async def test_leading_ends_by_the_clock_even_if_the_loop_was_stuck():
    kube = FakeKube()
    a = candidate(kube, "a")
    task = asyncio.create_task(a.run())
    await a.acquired()
    later = now() + 11
    a._clock = lambda: later
    with pytest.raises(NotLeaderError):
        a.check()
    await stop(task)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("PUT", "leases", ApiError(500, "InternalError", "etcd")),
        Fault("PUT", "leases", lost_connection(), after=True),
        Fault("PUT", "leases", ApiError(409, "Conflict", "changed")),
    ],
    ids=["500", "answer lost", "conflict"],
)
async def test_one_failed_renewal_costs_nothing(fault: Fault):
    kube = FakeKube()
    a = candidate(kube, "a")
    task = asyncio.create_task(a.run())
    await a.acquired()
    kube.faults.append(fault)
    for _ in range(60):
        await asyncio.sleep(0.5)
        assert a.leading
    assert fault.times == 0
    await stop(task)


async def test_the_lease_counts_transitions_and_keeps_the_time_of_acquisition():
    kube = FakeKube()
    a, b = candidate(kube, "a"), candidate(kube, "b")
    first = asyncio.create_task(a.run())
    await a.acquired()
    await asyncio.sleep(20)
    lease = kube.get(LEASES, "operator", "system")["spec"]
    assert lease["leaseTransitions"] == 0
    assert lease["renewTime"] >= lease["acquireTime"]
    await stop(first)
    await a.release()
    second = asyncio.create_task(b.run())
    await b.acquired()
    assert kube.get(LEASES, "operator", "system")["spec"]["leaseTransitions"] == 1
    assert holder(kube) == "b"
    await stop(second)


async def test_a_follower_does_not_release_what_is_not_its_own():
    kube = FakeKube()
    a, b = candidate(kube, "a"), candidate(kube, "b")
    first = asyncio.create_task(a.run())
    await a.acquired()
    second = asyncio.create_task(b.run())
    await asyncio.sleep(5)
    await stop(second)
    await b.release()
    assert holder(kube) == "a"
    await stop(first)
