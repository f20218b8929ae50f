"""A checkpoint that travels arrives as it was, or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drakkar_workers.memory.arena import Arena, Key, checksum_of
from drakkar_workers.memory.parcel import Intake, Parcel, content

HEAD, BODY = b"h" * 100, bytes(range(256)) * 40


def sealed(*, shared: bool) -> Arena:
    arena = Arena.create("from")
    slot = arena.begin(len(HEAD) + len(BODY))
    arena.view(slot)[: len(HEAD) + len(BODY)] = HEAD + BODY
    arena.seal(
        slot,
        Key(2, 7),
        head=(len(HEAD), checksum_of(HEAD)),
        body=(len(BODY), checksum_of(BODY)),
        shared=shared,
    )
    return arena


@pytest.mark.parametrize("shared", [False, True])
@given(block=st.integers(64, 20_000))
def test_it_arrives_whole(shared, block) -> None:
    source, target = sealed(shared=shared), Arena.create("to")
    (record,) = source.records()
    parcel = Parcel.of(record)
    assert parcel.with_body is not shared
    intake = Intake(target, parcel)
    for data in content(source, record, parcel, block):
        assert target.records() == []
        intake.take(data)
    intake.finish()
    (found,) = target.records()
    assert (found.key, found.with_body) == (Key(2, 7), not shared)
    assert target.verify(found) is None
    assert target.read(found, 0, found.size) == (HEAD if shared else HEAD + BODY)
    source.close()
    target.close()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data[:-1], "10339 of 10340 bytes"),
        (lambda data: b"x" + data[1:], "the head's checksum"),
        (lambda data: data[:-1] + b"x", "the body's checksum"),
        (lambda data: data + b"x", "more than the 10340 bytes"),
    ],
)
def test_what_was_changed_on_the_way_is_refused(spoil, message) -> None:
    source, target = sealed(shared=False), Arena.create("to")
    (record,) = source.records()
    parcel = Parcel.of(record)
    intake = Intake(target, parcel)
    data = spoil(b"".join(content(source, record, parcel, 1 << 20)))
    with pytest.raises(ValueError, match=message):
        intake.take(data)
        intake.finish()
    assert target.records() == []
    source.close()
    target.close()
