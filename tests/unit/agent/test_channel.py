"""What trainers tell: typed, bounded, and never in the training's way."""

import math
import socket
import time

import pytest

from drakkar_workers import channel


@pytest.fixture
def inbox(monkeypatch):
    name = f"@drakkar-test-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as receiver:
        receiver.bind(channel.address(name))
        monkeypatch.setenv(channel.SOCKET_ENV, name)
        monkeypatch.setenv(channel.EPOCH_ENV, "4")
        yield receiver


def test_messages_arrive_as_sent(inbox) -> None:
    channel.send_step(rank=1, step=3, total_steps=9, loss=2.5, started=1e9)
    channel.send_eval(step=3, eval_loss=2.25)
    channel.send_checkpoint(step=3, path="job/step-00000003")
    channel.send_sample(text="und es ward Licht ✨")
    channel.send_phase(rank=1, phase="saving")
    channel.send_error(rank=1, reason="OSError", message="disk full")
    assert [channel.decode(inbox.recv(1 << 16)) for _ in range(6)] == [
        channel.StepMessage(rank=1, epoch=4, step=3, total_steps=9, loss=2.5, started=1e9),
        channel.EvalMessage(rank=0, epoch=4, step=3, eval_loss=2.25),
        channel.CheckpointMessage(rank=0, epoch=4, step=3, path="job/step-00000003"),
        channel.SampleMessage(rank=0, epoch=4, text="und es ward Licht ✨"),
        channel.PhaseMessage(rank=1, epoch=4, phase="saving"),
        channel.ErrorMessage(rank=1, epoch=4, reason="OSError", message="disk full"),
    ]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_has_not_are_left_out(inbox, loss: float) -> None:
    channel.send_step(rank=0, step=1, total_steps=2, loss=loss)
    assert channel.decode(inbox.recv(1 << 16)).loss is None


def test_long_texts_are_cut(inbox) -> None:
    channel.send_error(rank=0, reason="R" * 100, message="\x00" * 5000)
    error = channel.decode(inbox.recv(1 << 16))
    assert (len(error.reason), len(error.message)) == (64, 1024)


def test_without_an_agent_nothing_happens(monkeypatch) -> None:
    monkeypatch.delenv(channel.SOCKET_ENV, raising=False)
    channel.send_step(rank=0, step=1, total_steps=2)
    monkeypatch.setenv(channel.SOCKET_ENV, "@drakkar-nobody-listens")
    channel.send_error(rank=0, reason="R", message="m")
    channel.send_sample(text="\ud800")


def test_a_full_queue_does_not_hold_the_training_up(inbox) -> None:
    began = time.monotonic()
    for step in range(2000):
        channel.send_step(rank=0, step=step, total_steps=2000)
    assert time.monotonic() - began < 5
    began = time.monotonic()
    channel.send_phase(rank=0, phase="done")
    assert channel.PATIENCE_SECONDS <= time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("datagram", "message"),
    [
        (b"", "Invalid JSON"),
        (b"{}", "kind"),
        (b'{"kind": "step", "rank": -1, "step": 1, "total_steps": 2}', "rank"),
        (b'{"kind": "step", "rank": 0, "step": 1e300, "total_steps": 2}', "step"),
        (b'{"kind": "dance", "rank": 0}', "kind"),
        (b'{"kind": "sample", "rank": 0, "text": "' + b"x" * 2049 + b'"}', "text"),
    ],
)
def test_refuses_what_is_no_message(datagram: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        channel.decode(datagram)
