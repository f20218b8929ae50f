"""Informers against a server that forgets, hangs, lies, breaks off and refuses."""

import asyncio
import random
from typing import Any

import pytest

from drakkar.kube.backoff import Backoff
from drakkar.kube.informer import Informer
from drakkar.kube.rest import ApiError, Object, Rest
from drakkar_operator.metrics import Metrics
from support.fake_kube import FakeKube, Fault, MemoryRest, lost_connection

travels = pytest.mark.looptime(start=0)
PATH = "/api/v1/pods"


def thing(name: str, value: int = 0, namespace: str = "default") -> Object:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"value": value}}


def project(raw: Object) -> tuple[str, int]:
    return raw["metadata"]["name"], int(raw["spec"]["value"])


def now() -> float:
    return asyncio.get_running_loop().time()


class Watched:
    """An informer that runs, and the changes it told of."""

    def __init__(self, kube: FakeKube, rest: Rest | None = None, **settings: Any) -> None:
        self.kube = kube
        self.metrics = Metrics()
        self.informer: Informer[tuple[str, int]] = Informer(
            rest or MemoryRest(kube),
            PATH,
            project,
            metrics=self.metrics,
            clock=now,
            rng=random.Random(3),
            backoff=Backoff(base=0.5, cap=8.0, rng=random.Random(3)),
            **settings,
        )
        self.changes: list[tuple[str, str, int]] = []
        self.informer.subscribe(self._note)

    def _note(self, old: tuple[str, int] | None, new: tuple[str, int] | None) -> None:
        kind = "added" if old is None else "deleted" if new is None else "changed"
        name, value = new or old or ("", 0)
        self.changes.append((kind, name, value))

    async def __aenter__(self) -> "Watched":
        self.task = asyncio.create_task(self.informer.run())
        await self.informer.synced.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    @property
    def names(self) -> dict[str, int]:
        return dict(self.informer.items.values())

    def lists(self) -> int:
        return self.kube.sent("GET")

    async def agrees(self) -> None:
        """The copy is what the server has."""
        want = {o["metadata"]["name"]: o["spec"]["value"] for o in self.kube.all("pods")}
        assert self.names == want


@travels
async def test_pages_are_put_together():
    kube = FakeKube()
    for i in range(25):
        kube.put("pods", thing(f"p{i}", i))
    async with Watched(kube, page=10) as seen:
        assert seen.lists() == 3
        await seen.agrees()
        assert len(seen.changes) == 25


@travels
async def test_changes_arrive_in_order():
    kube = FakeKube()
    kube.put("pods", thing("a", 1))
    async with Watched(kube) as seen:
        kube.put("pods", thing("b", 1))
        kube.put("pods", thing("a", 2))
        kube.remove("pods", "default", "a")
        await asyncio.sleep(0.1)
        assert seen.changes == [
            ("added", "a", 1),
            ("added", "b", 1),
            ("changed", "a", 2),
            ("deleted", "a", 2),
        ]
        assert seen.lists() == 1


@travels
async def test_a_recreated_object_is_a_deletion_and_an_addition():
    kube = FakeKube()
    kube.put("pods", thing("a", 1))
    async with Watched(kube) as seen:
        kube.mute = True
        kube.remove("pods", "default", "a")
        kube.put("pods", thing("a", 5))
        kube.mute = False
        kube.compact()
        await asyncio.sleep(20)
        assert seen.changes == [("added", "a", 1), ("deleted", "a", 1), ("added", "a", 5)]


@travels
@pytest.mark.parametrize("in_stream", [False, True], ids=["status", "in the stream"])
async def test_after_410_the_list_is_compared_and_deletions_are_made_up(in_stream: bool):
    kube = FakeKube(gone_in_stream=in_stream)
    for name in "abc":
        kube.put("pods", thing(name, 1))
    async with Watched(kube) as seen:
        kube.mute = True
        kube.remove("pods", "default", "b")
        kube.put("pods", thing("c", 2))
        kube.put("pods", thing("d", 1))
        kube.mute = False
        kube.compact()
        seen.changes.clear()
        await asyncio.sleep(30)
        await seen.agrees()
        assert sorted(seen.changes) == [("added", "d", 1), ("changed", "c", 2), ("deleted", "b", 1)]
        assert seen.lists() == 2


@travels
async def test_a_silent_watch_is_given_up():
    kube = FakeKube()
    async with Watched(kube, watch_seconds=60.0, grace=10.0) as seen:
        kube.mute = True
        kube.put("pods", thing("a", 1))
        await asyncio.sleep(50)
        assert seen.names == {}
        kube.mute = False
        await asyncio.sleep(60)
        await seen.agrees()
        assert seen.lists() == 1, "the watch goes on where it was"


@travels
async def test_an_idle_watch_is_renewed_from_its_bookmark():
    kube = FakeKube(bookmark_seconds=20.0)
    async with Watched(kube, watch_seconds=60.0) as seen:
        for i in range(50):
            kube.put("nodes", {"metadata": {"name": f"n{i}"}})
        await asyncio.sleep(30)
        # The pods did not change: only the bookmark tells how far the watch has come.
        kube.oldest = kube.version
        await asyncio.sleep(500)
        assert seen.lists() == 1
        assert 6 <= kube.sent("WATCH") <= 12
        assert seen.informer.age() < 60


@travels
async def test_a_server_that_ends_watches_at_once_is_not_hammered():
    kube = FakeKube()
    async with Watched(kube) as seen:
        for _ in range(100):
            kube.cut_watches()
            await asyncio.sleep(0.5)
        assert kube.sent("WATCH") < 40
        kube.put("pods", thing("a", 1))
        await asyncio.sleep(10)
        await seen.agrees()


@travels
@pytest.mark.parametrize(
    "error",
    [
        lost_connection(),
        ApiError(500, "InternalError", "etcd"),
        ApiError(429, "TooManyRequests", "slow down", retry_after=20.0),
        ApiError(403, "Forbidden", "no"),
    ],
    ids=["lost", "500", "429", "403"],
)
async def test_it_recovers_from_refused_watches(error: ApiError):
    kube = FakeKube()
    async with Watched(kube) as seen:
        kube.faults.append(Fault("WATCH", "pods", error, times=3))
        kube.cut_watches()
        kube.put("pods", thing("a", 1))
        start = now()
        while seen.names != {"a": 1}:
            await asyncio.sleep(0.1)
            assert now() - start < 100
        if error.retry_after:
            assert now() - start >= error.retry_after


@travels
async def test_it_waits_for_a_server_that_is_not_there_yet():
    kube = FakeKube(faults=[Fault("GET", "pods", lost_connection(), times=20)])
    kube.put("pods", thing("a", 1))
    async with Watched(kube) as seen:
        await seen.agrees()
        assert 20 < now() < 200
        assert seen.informer.age() < 1


@travels
async def test_a_list_whose_snapshot_is_compacted_away_starts_over():
    kube = FakeKube()
    for i in range(30):
        kube.put("pods", thing(f"p{i:02}", i))

    def change() -> None:
        kube.remove("pods", "default", "p00")
        kube.put("pods", thing("p99", 99))
        kube.compact()

    kube.faults += [Fault("GET", "pods", times=1), Fault("GET", "pods", call=change)]
    async with Watched(kube, page=10) as seen:
        await seen.agrees()
        assert "p00" not in seen.names
        assert seen.lists() <= 4


@travels
async def test_changes_during_a_paged_list_are_not_lost():
    kube = FakeKube()
    for i in range(30):
        kube.put("pods", thing(f"p{i:02}", i))

    def change() -> None:
        kube.remove("pods", "default", "p25")
        kube.put("pods", thing("p05", 500))
        kube.put("pods", thing("p99", 99))

    kube.faults += [Fault("GET", "pods", times=1), Fault("GET", "pods", call=change)]
    async with Watched(kube, page=10) as seen:
        assert "p25" in seen.names, "the pages are of one moment"
        await asyncio.sleep(0.1)
        await seen.agrees()


@travels
async def test_own_writes_are_seen_at_once_and_old_news_do_not_undo_them():
    kube = FakeKube()
    async with Watched(kube) as seen:
        kube.mute = True
        raw = kube.put("pods", thing("a", 1))
        seen.informer.upsert(raw)
        newer = kube.put("pods", thing("a", 2))
        seen.informer.upsert(newer)
        seen.informer.upsert(raw)
        assert seen.names == {"a": 2}
        kube.mute = False
        kube.cut_watches()
        await asyncio.sleep(10)
        assert seen.changes == [("added", "a", 1), ("changed", "a", 2)]


@travels
async def test_a_late_answer_does_not_revive_a_deleted_object():
    kube = FakeKube()
    async with Watched(kube) as seen:
        raw = kube.put("pods", thing("a", 1))
        kube.remove("pods", "default", "a")
        await asyncio.sleep(0.1)
        assert seen.informer.upsert(raw) is False
        assert seen.names == {}


@travels
async def test_a_relist_that_is_older_than_our_own_write_keeps_it():
    kube = FakeKube()
    async with Watched(kube) as seen:
        created: list[Object] = []

        def create() -> None:
            created.append(kube.put("pods", thing("b", 1)))

        # The second page is answered after the write, from the first page's snapshot.
        for i in range(20):
            kube.put("pods", thing(f"p{i:02}", i))
        seen.informer._page = 10
        kube.faults += [Fault("GET", "pods"), Fault("GET", "pods", call=create)]
        kube.compact()
        while not created:
            await asyncio.sleep(0.01)
        seen.informer.upsert(created[0])
        await asyncio.sleep(10)
        await seen.agrees()
        assert ("deleted", "b", 1) not in seen.changes


@travels
async def test_an_object_that_makes_no_sense_does_not_hide_the_others():
    kube = FakeKube()
    kube.put("pods", {"metadata": {"name": "odd", "namespace": "default"}, "spec": {}})
    kube.put("pods", thing("a", 1))
    async with Watched(kube) as seen:
        assert seen.names == {"a": 1}
        kube.edit("pods", "default", "odd", lambda raw: raw["spec"].update(value="nan"))
        kube.put("pods", thing("b", 1))
        await asyncio.sleep(1)
        assert seen.names == {"a": 1, "b": 1}
        kube.edit("pods", "default", "odd", lambda raw: raw["spec"].update(value=3))
        await asyncio.sleep(1)
        await seen.agrees()


@travels
@pytest.mark.parametrize("seed", range(5))
async def test_random_faults_never_make_it_disagree_for_long(seed: int):
    rng = random.Random(seed)
    kube = FakeKube(bookmark_seconds=10.0)
    errors = [lost_connection(), ApiError(500, "E", ""), ApiError(429, "E", "", 1.0)]
    async with Watched(kube, page=7, watch_seconds=30.0) as seen:
        for _ in range(400):
            name = f"p{rng.randrange(40)}"
            if rng.random() < 0.3 and ("pods", "default", name) in kube.objects:
                kube.remove("pods", "default", name)
            else:
                kube.put("pods", thing(name, rng.randrange(1000)))
            if rng.random() < 0.03:
                verb = rng.choice(["GET", "WATCH"])
                kube.faults.append(Fault(verb, "pods", rng.choice(errors), times=2))
            if rng.random() < 0.02:
                kube.gone_in_stream = rng.random() < 0.5
                kube.compact()
            if rng.random() < 0.02:
                kube.cut_watches()
            kube.mute = rng.random() < 0.05
            await asyncio.sleep(rng.random() * 2)
        kube.mute = False
        kube.faults.clear()
        await asyncio.sleep(120)
        await seen.agrees()
        # What was told adds up to what there is.
        told: dict[str, int] = {}
        for kind, name, value in seen.changes:
            assert (name in told) == (kind != "added")
            if kind == "deleted":
                del told[name]
            else:
                told[name] = value
        assert told == seen.names
