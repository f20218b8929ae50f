"""The work queue: one worker per key, coalescing, delays, back-off, priorities."""

import asyncio
import random

import pytest

from drakkar_operator.cluster.workqueue import QueueClosedError, WorkQueue

pytestmark = pytest.mark.looptime(start=0)


def now() -> float:
    return asyncio.get_running_loop().time()


def make(**settings: float) -> WorkQueue[str]:
    return WorkQueue(clock=now, rng=random.Random(1), **settings)


async def take(queue: WorkQueue[str]) -> tuple[str, float]:
    return await queue.get(), now()


async def test_a_key_added_often_runs_once():
    queue = make()
    for _ in range(5):
        queue.add("a")
    assert await take(queue) == ("a", 0.0)
    queue.done("a")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 10)


async def test_a_quiet_key_runs_at_once_a_noisy_one_after_the_window():
    queue = make(window=0.5)
    queue.add("a")
    assert await take(queue) == ("a", 0.0)
    queue.done("a")
    await asyncio.sleep(0.1)
    queue.add("a")
    queue.add("a")
    key, at = await take(queue)
    assert (key, at) == ("a", pytest.approx(0.5))
    queue.done("a")
    await asyncio.sleep(5)
    queue.add("a")
    assert (await take(queue))[1] == pytest.approx(5.5)


async def test_a_key_never_has_two_workers():
    queue = make(window=0.0)
    queue.add("a")
    await queue.get()
    queue.add("a")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 5)
    queue.done("a")
    assert (await take(queue))[0] == "a"


async def test_many_workers_and_keys_each_key_alone():
    queue = make(window=0.01)
    rng = random.Random(7)
    busy: set[str] = set()
    runs: dict[str, int] = {}

    async def handle(key: str) -> None:
        assert key not in busy
        busy.add(key)
        await asyncio.sleep(rng.random())
        busy.remove(key)
        runs[key] = runs.get(key, 0) + 1

    workers = [asyncio.create_task(queue.work(handle)) for _ in range(8)]
    last: dict[str, float] = {}
    for _ in range(300):
        key = f"k{rng.randrange(20)}"
        queue.add(key)
        last[key] = now()
        await asyncio.sleep(rng.random() * 0.05)
    await asyncio.sleep(30)
    assert set(runs) == set(last)
    assert len(queue) == 0
    queue.close()
    await asyncio.gather(*workers)


async def test_an_addition_during_the_run_is_not_lost():
    queue = make(window=0.0)
    seen: list[float] = []

    async def handle(key: str) -> None:
        seen.append(now())
        if len(seen) == 1:
            queue.add(key)
            await asyncio.sleep(3)

    worker = asyncio.create_task(queue.work(handle))
    queue.add("a")
    await asyncio.sleep(10)
    assert seen == [0.0, pytest.approx(3.0)]
    queue.close()
    await worker


async def test_the_earlier_of_two_delays_counts():
    queue = make()
    queue.add_after("a", 30)
    queue.add_after("a", 10)
    queue.add_after("a", 20)
    assert await take(queue) == ("a", pytest.approx(10.0))
    queue.done("a")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 100)


async def test_a_new_delay_wakes_a_worker_that_sleeps_longer():
    queue = make()
    queue.add_after("late", 60)
    getting = asyncio.create_task(take(queue))
    await asyncio.sleep(1)
    queue.add_after("soon", 2)
    assert await getting == ("soon", pytest.approx(3.0))


async def test_failures_back_off_up_to_the_cap_and_success_resets():
    queue = make(window=0.0, base=1.0, cap=8.0)
    delays = []
    for _ in range(6):
        start = now()
        queue.retry("a")
        await queue.get()
        queue.done("a")
        delays.append(now() - start)
    for delay, limit in zip(delays, (1, 2, 4, 8, 8, 8), strict=True):
        assert limit / 2 <= delay <= limit
    queue.reset("a")
    start = now()
    queue.retry("a")
    await queue.get()
    assert now() - start <= 1.0


async def test_an_event_overtakes_a_back_off():
    queue = make(base=50.0)
    queue.retry("a")
    await asyncio.sleep(1)
    queue.add("a")
    assert await take(queue) == ("a", pytest.approx(1.0))


async def test_higher_priorities_go_first_even_if_added_later():
    queue = make()
    for key in ("a", "b"):
        queue.add(key)
    queue.add("c", priority=1)
    queue.add("b", priority=2)
    order = [await queue.get() for _ in range(3)]
    assert order == ["b", "c", "a"]


async def test_a_closed_queue_ends_its_workers_after_their_current_key():
    queue = make()
    finished = []

    async def handle(key: str) -> None:
        await asyncio.sleep(5)
        finished.append(key)

    worker = asyncio.create_task(queue.work(handle))
    queue.add("a")
    queue.add("b")
    await asyncio.sleep(1)
    queue.close()
    await worker
    assert finished == ["a"]
    with pytest.raises(QueueClosedError):
        await queue.get()


async def test_a_forgotten_key_does_not_run():
    queue = make()
    queue.add_after("a", 5)
    queue.forget("a")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 60)
