"""Which checkpoint in memory a gang goes on from."""

import pytest

from drakkar_workers.memory.agree import Offer, candidates, holder
from drakkar_workers.memory.arena import Key

K40, K50, K60 = Key(1, 40), Key(1, 50), Key(1, 60)


def own(*keys: Key, world: int = 2) -> list[Offer]:
    return [Offer(key, world, False, True) for key in keys]


def shared(*keys: Key, world: int = 2, body: bool = True) -> list[Offer]:
    return [Offer(key, world, True, body) for key in keys]


@pytest.mark.parametrize(
    ("offers", "keys"),
    [
        pytest.param([own(K50, K40), own(K50, K40)], [K50, K40], id="all have both"),
        pytest.param([own(K60, K50), own(K50, K40)], [K50], id="one died before it had the newest"),
        pytest.param([own(K60), own(K50)], [], id="nothing in common"),
        pytest.param([own(K50), []], [], id="a rank lost all"),
        pytest.param([own(K50, world=3), own(K50, world=3)], [], id="of another number of ranks"),
        pytest.param([own(K50), shared(K50)], [K50], id="mixed is treated as own"),
        pytest.param([shared(K50), shared(K50, body=False)], [K50], id="one body is enough"),
        pytest.param([shared(K50, body=False)] * 2, [], id="a body is needed"),
        pytest.param([shared(K50), []], [], id="each needs its own part"),
        pytest.param([shared(K50, world=3), []], [K50], id="no part of another number of ranks"),
        pytest.param([own(Key(2, 50)), own(Key(1, 50))], [], id="the same step of another epoch"),
        pytest.param(
            [own(Key(2, 45), K50), own(Key(2, 45), K50)], [Key(2, 45), K50], id="later epoch first"
        ),
    ],
)
def test_candidates(offers, keys) -> None:
    assert candidates(offers, at_least=0) == keys


def test_storage_may_be_newer() -> None:
    assert candidates([own(K60, K50, K40)] * 2, at_least=50) == [K60, K50]


def test_the_first_rank_with_a_body_gives_it() -> None:
    assert holder(K50, [shared(K50, body=False), shared(K50), shared(K50)]) == 1
