"""What an agent keeps in memory for itself and for others."""

import pytest

from drakkar.protocol import GangConfig
from drakkar_workers.agent.seat import Seat
from drakkar_workers.agent.sharing import Sharing
from drakkar_workers.agent.vault import BusyError, Vault
from drakkar_workers.agent.wire import Heartbeat, Held
from drakkar_workers.memory.arena import checksum_of
from drakkar_workers.memory.parcel import Parcel

HEAD = b"head"


def parcel(step: int) -> Parcel:
    return Parcel(
        epoch=1,
        step=step,
        head_size=len(HEAD),
        body_size=0,
        head_sum=checksum_of(HEAD),
        body_sum=0,
        shared=True,
        with_body=False,
    )


def keep(vault: Vault, rank: int, step: int) -> None:
    with vault.take_copy(rank, parcel(step)) as intake:
        intake.take(HEAD)
        intake.finish()


def test_copies_are_kept_and_freed() -> None:
    vault = Vault([0, 1])
    keep(vault, 4, 10)
    keep(vault, 5, 10)
    assert [(h.rank, h.step, h.with_body) for h in vault.list_copies()] == [
        (4, 10, False),
        (5, 10, False),
    ]
    assert vault.list_own() == []
    vault.keep_copies([5])
    assert [h.rank for h in vault.list_copies()] == [5]
    assert set(vault.descriptors) == {0, 1}
    vault.close()


def test_one_checkpoint_of_a_rank_at_a_time() -> None:
    vault = Vault([0])
    with vault.take_copy(4, parcel(10)), pytest.raises(BusyError):
        vault.take_copy(4, parcel(20))
    keep(vault, 4, 20)
    assert [h.step for h in vault.list_copies()] == [20], "the one cut off is not there"
    vault.close()


def seat(replica: int, *, memory: list[Held], copies: list[Held]) -> Seat:
    found = Seat(replica, 5.0)
    found.beat = Heartbeat(
        uid="u",
        replica=replica,
        incarnation="a",
        started=0,
        sequence=1,
        pod=f"p-{replica}",
        node=f"node-{replica}",
        address=f"10.0.0.{replica}",
        memory=memory,
        copies=copies,
    )
    return found


def test_orders_say_who_keeps_and_who_fetches_what() -> None:
    config = GangConfig(
        job="j",
        namespace="n",
        uid="u",
        replicas=3,
        processes_per_replica=2,
        coordinator="c",
        memory_every=5,
    )
    own = {r: [Held(rank=rank, epoch=1, step=40) for rank in (2 * r, 2 * r + 1)] for r in (0, 2)}
    copies = [Held(rank=rank, epoch=1, step=40) for rank in (2, 3)]
    seats = [
        seat(0, memory=own[0], copies=[]),
        seat(1, memory=[], copies=[]),
        seat(2, memory=own[2], copies=copies),
    ]
    sharing = Sharing(config)
    sharing.begin_epoch(seats)
    orders = [sharing.orders(replica, seats, 1.0) for replica in range(3)]
    assert [o["partner"] for o in orders] == ["10.0.0.1", "10.0.0.2", "10.0.0.0"]
    assert [o["keeps"] for o in orders] == [[4, 5], [0, 1], [2, 3]]
    assert [len(o["fetch"]) for o in orders] == [0, 2, 0]
    assert {(f.rank, f.step, f.host) for f in orders[1]["fetch"]} == {
        (2, 40, "10.0.0.2"),
        (3, 40, "10.0.0.2"),
    }
    assert orders[0]["partner_every"] == 5
