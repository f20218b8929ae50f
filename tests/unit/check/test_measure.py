"""What the measurements of a check are numbers of."""

import threading

import pytest
import torch
import torch.distributed as dist

from drakkar_workers.check.measure import allreduce_gbps, bus_gbps


@pytest.mark.parametrize(
    ("ranks", "factor"), [(2, 1.0), (4, 1.5), (8, 1.75), (1024, 2 * 1023 / 1024)]
)
def test_bus_bandwidth_is_that_of_nccl_tests(ranks: int, factor: float) -> None:
    """PERFORMANCE.md there: algbw is size over time, busbw of an all-reduce 2 (n - 1) / n of it."""
    size, seconds = 1 << 30, 0.01
    algorithm = size * 8 / seconds / 1e9
    assert bus_gbps(size, seconds, ranks) == pytest.approx(algorithm * factor)


def test_two_ranks_reduce_with_each_other_alone() -> None:
    """A group of their own, as a check makes one for each pair."""
    store = dist.HashStore()
    found: list[float] = []

    def rank(number: int) -> None:
        group = dist.ProcessGroupGloo(store, number, 2)
        vector = torch.ones(4)
        group.allreduce([vector]).wait()
        assert vector.tolist() == [2.0] * 4
        found.append(allreduce_gbps(torch.device("cpu"), group))

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 2
    assert all(gbps > 0 for gbps in found)
