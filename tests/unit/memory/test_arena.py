"""Checkpoints in memory: whole or absent, whoever dies when."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drakkar_workers.memory import arena as arenas
from drakkar_workers.memory import limits
from drakkar_workers.memory.arena import Arena, Key, NoRoomError, Record, checksum_of, choose


@pytest.fixture
def arena():
    made = Arena.create("test")
    yield made
    made.close()


def put(arena: Arena, step: int, *, epoch: int = 1, body: bytes | None = None, seal=True) -> None:
    head = f"head of {step}".encode()
    body = body if body is not None else bytes([step % 256]) * 5000
    slot = arena.begin(len(head) + len(body))
    view = arena.view(slot)
    view[: len(head)] = head
    view[len(head) : len(head) + len(body)] = body
    if seal:
        arena.seal(
            slot,
            Key(epoch, step),
            head=(len(head), checksum_of(head)),
            body=(len(body), checksum_of(body)),
            shared=False,
        )


def steps(arena: Arena) -> list[int]:
    return [record.key.step for record in arena.records()]


def test_two_slots_do_where_no_peer_has_copies(arena):
    for step in range(1, 8):
        put(arena, step)
    assert steps(arena) == [7, 6]
    assert all(arena.verify(record) is None for record in arena.records())
    assert arena.read(arena.records()[0], 0, 9) == b"head of 7"


def test_what_a_peer_has_or_gets_is_kept(arena):
    arena.peer_every = 4
    for step in range(1, 12):
        put(arena, step)
    assert steps(arena)[0] == 11
    assert {8, 4} <= set(steps(arena)), "the copy that is there and the one under way"
    put(arena, 12)
    put(arena, 13)
    assert {13, 12, 8} <= set(steps(arena))


def test_another_process_finds_them(arena):
    put(arena, 3)
    other = Arena(os.dup(arena.descriptor))
    assert steps(other) == [3]
    assert other.verify(other.records()[0]) is None
    other.close()


def test_a_writer_that_dies_leaves_the_one_before(arena):
    put(arena, 1)
    put(arena, 2)
    put(arena, 3, seal=False)
    assert steps(arena) == [2]
    put(arena, 4)
    assert steps(arena) == [4, 2]


def test_a_flipped_bit_shows(arena):
    put(arena, 1)
    (record,) = arena.records()
    arena.write(record.slot, b"\xff", record.head_size + 4000)
    assert "its body has checksum" in arena.verify(record)
    arena.write(record.slot, b"\xff", 2)
    assert "its head has checksum" in arena.verify(record)


def test_a_state_that_has_grown_starts_anew(arena):
    put(arena, 1)
    put(arena, 2, body=b"x" * (5 << 20))
    assert steps(arena) == [2]
    assert arena.verify(arena.records()[0]) is None


def test_the_memory_limit_is_kept():
    arena = Arena.create("test", lambda: 3 << 20)
    put(arena, 1)
    arena._room = lambda: 1 << 20
    with pytest.raises(NoRoomError, match=r"takes 2 MiB, .* leaves 1 MiB"):
        put(arena, 2)
    assert steps(arena) == [1]
    arena.close()


def test_later_epochs_are_newer_whatever_the_step(arena):
    put(arena, 50, epoch=1)
    put(arena, 48, epoch=2)
    assert [tuple(record.key) for record in arena.records()] == [(2, 48), (1, 50)]
    arena.drop(lambda record: record.key.step > 48)
    assert steps(arena) == [48]


def test_reserved_memory_is_there_before_the_first_save(arena):
    arena.reserve(3 << 20, 2)
    assert arena.bytes_used >= 8 << 20
    before = arena.bytes_used
    put(arena, 1)
    put(arena, 2)
    assert arena.bytes_used == before and steps(arena) == [2, 1]


@given(
    deaths=st.lists(st.booleans(), max_size=40),
    every=st.sampled_from([0, 1, 2, 4, 8]),
)
def test_the_newest_and_what_peers_need_are_never_overwritten(deaths, every) -> None:
    """A model of the slots: saves that die half-way, in epochs that restart."""
    slots: dict[int, Record] = {}
    grown = 0
    for step, dies in enumerate(deaths, 1):
        before = list(slots.values())
        slot = choose(before, grown, every)
        assert slot < arenas.SLOTS
        grown = max(grown, slot + 1)
        newest = max((r.key for r in before), default=None)
        anchors = sorted((r.key for r in before if every and r.key.step % every == 0), reverse=True)
        victim = slots.pop(slot, None)
        if victim is not None:
            assert victim.key != newest and victim.key not in anchors[:2]
        if not dies:
            slots[slot] = Record(slot, Key(1, step), 1, 1, 0, 0, False, True, step)


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, None),
        ({"memory.max": "max\n", "memory.current": "5\n"}, None),
        (
            {
                "memory.max": "1000\n",
                "memory.current": "500\n",
                "memory.stat": "inactive_file 100\n",
            },
            500,
        ),
        (
            {
                "memory/memory.limit_in_bytes": "1000",
                "memory/memory.usage_in_bytes": "950",
                "memory/memory.stat": "total_inactive_file 0",
            },
            -50,
        ),
        (
            {
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "memory/memory.usage_in_bytes": "950",
            },
            None,
        ),
    ],
)
def test_room_below_the_memory_limit(tmp_path, files, free) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert limits.room(tmp_path) == free
