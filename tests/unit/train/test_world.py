import os
import signal

import pytest
import torch

from drakkar_workers.train import control, world
from drakkar_workers.train.entry import lost_peer

CPUS = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("environ", "local", "cpu_max", "threads"),
    [
        ({"OMP_NUM_THREADS": "3"}, 8, "max 100000", 3),
        ({}, 1, "max 100000", CPUS),
        ({}, 1, "100000 100000", 1),
        ({}, 2, "max 100000", max(1, CPUS // 2)),
        ({}, 1000, "max 100000", 1),
        ({"OMP_NUM_THREADS": "zero"}, 1, "50000 100000", 1),
        ({"OMP_NUM_THREADS": "0"}, 1, "100000 100000", 1),
    ],
)
def test_threads_follow_the_quota(environ, local, cpu_max, threads, tmp_path):
    (tmp_path / "cpu.max").write_text(cpu_max + "\n")
    assert world.thread_count(environ, local, tmp_path / "cpu.max") == threads


def test_one_rank_needs_no_group():
    alone = world.World(0, 1, torch.device("cpu"), None)
    assert alone.sum((1.5, 2.0)) == [1.5, 2.0]
    assert alone.gather("x") == ["x"] and alone.from_first("x") == "x"


def test_signals_become_requests_and_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with control.listening() as requests:
        assert requests.take() == (0.0, 0.0)
        signal.raise_signal(signal.SIGUSR1)
        assert requests.take() == (1.0, 0.0)
        assert requests.take() == (0.0, 0.0), "a save is asked for once"
        signal.raise_signal(signal.SIGTERM)
        assert requests.take() == (0.0, 1.0)
        assert requests.take() == (0.0, 1.0), "leaving stays asked for"
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[/pytorch/gloo/transport/tcp/pair.cc:534] Connection closed by peer"), True),
        (RuntimeError("Timed out waiting 60000ms for recv operation, gloo/transport/x"), True),
        (torch.distributed.DistNetworkError("store"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("gloo/ in a value"), False),
    ],
)
def test_a_lost_peer_is_told_from_a_fault_of_its_own(error, lost):
    assert lost_peer(error) is lost
