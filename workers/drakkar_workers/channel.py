"""What a trainer process tells the agent beside it.

One JSON object per datagram on the unix socket named by ``$DRAKKAR_AGENT_SOCKET``; a leading ``@``
means Linux's abstract namespace, which leaves no file behind. Without the variable every ``send_*``
does nothing, so the same training code runs on a laptop. Sending never raises and never holds the
training up: a step that finds the agent's queue full is dropped (the next one says more), rarer
messages are offered for at most ``PATIENCE_SECONDS``.

Any process may report, also a user's own script::

    from drakkar_workers.channel import send_step
    send_step(rank=0, step=10, total_steps=100, loss=2.3)
"""

import contextlib
import math
import os
import socket
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from drakkar.v1alpha1.meta import Model

SOCKET_ENV = "DRAKKAR_AGENT_SOCKET"
EPOCH_ENV = "DRAKKAR_EPOCH"
MESSAGE_LIMIT_BYTES = 16_384
PATIENCE_SECONDS = 0.2

PhaseName = Literal["starting", "restoring", "compiling", "training", "saving", "done"]

Rank = Annotated[int, Field(ge=0, lt=1 << 20)]
Step = Annotated[int, Field(ge=0, lt=1 << 53)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Message(Model):
    rank: Rank
    epoch: int = Field(default=0, ge=0, description="Of the gang; an older one's words are stale.")


class StepMessage(_Message):
    """An optimizer step is done."""

    kind: Literal["step"] = "step"
    step: Step = Field(description="Steps done since the start of the training.")
    total_steps: Step
    loss: Number | None = Field(default=None, description="Nats per token, over all ranks.")
    tokens_per_second: Number | None = Field(default=None, description="Of the whole gang.")
    mfu: Number | None = None
    step_seconds: Number | None = None
    productive_seconds: Number | None = Field(
        default=None, description="Time in steps that still count: restored with the checkpoint."
    )
    stall_seconds: Number | None = Field(
        default=None, description="That saves have held the training up since the last step."
    )
    started: Number | None = Field(
        default=None, description="When the training first began, seconds since the epoch."
    )


class EvalMessage(_Message):
    """The held-out loss was measured."""

    kind: Literal["eval"] = "eval"
    step: Step
    eval_loss: Number | None = Field(default=None, description="Nats per token.")


class CheckpointMessage(_Message):
    """A checkpoint is published: complete, and found by whoever restores."""

    kind: Literal["checkpoint"] = "checkpoint"
    step: Step
    path: str = Field(max_length=512, description="Folder below the checkpoint volume.")


class ResumeMessage(_Message):
    """The training goes on from a step that was done before, or begins."""

    kind: Literal["resume"] = "resume"
    step: Step
    source: Literal["memory", "storage", "start"]


class SampleMessage(_Message):
    """Text that the model wrote."""

    kind: Literal["sample"] = "sample"
    text: str = Field(max_length=2048)


class PhaseMessage(_Message):
    """What the process does now."""

    kind: Literal["phase"] = "phase"
    phase: PhaseName


class ErrorMessage(_Message):
    """Why the process is about to end, or what went wrong although it goes on."""

    kind: Literal["error"] = "error"
    reason: str = Field(max_length=64, description="CamelCase, such as ConfigError.")
    message: str = Field(max_length=1024)


Message = (
    StepMessage
    | EvalMessage
    | CheckpointMessage
    | ResumeMessage
    | SampleMessage
    | PhaseMessage
    | ErrorMessage
)
_ADAPTER: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])


def decode(datagram: bytes) -> Message:
    """The message in a datagram. Raises ValueError that says what is wrong with it."""
    try:
        return _ADAPTER.validate_json(datagram)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "message"
        raise ValueError(f"trainer message: {place}: {first['msg']}") from None


def address(name: str) -> str:
    """The name of a socket as the ``socket`` module wants it."""
    return "\0" + name[1:] if name.startswith("@") else name


def send_step(
    *,
    rank: int,
    step: int,
    total_steps: int,
    loss: float | None = None,
    tokens_per_second: float | None = None,
    mfu: float | None = None,
    step_seconds: float | None = None,
    productive_seconds: float | None = None,
    stall_seconds: float | None = None,
    started: float | None = None,
) -> None:
    """A step is done; every rank tells, since the slowest rank shows in a hang."""
    _send(
        StepMessage,
        0.0,
        rank=rank,
        step=step,
        total_steps=total_steps,
        loss=_finite(loss),
        tokens_per_second=_finite(tokens_per_second),
        mfu=_finite(mfu),
        step_seconds=_finite(step_seconds),
        productive_seconds=_finite(productive_seconds),
        stall_seconds=_finite(stall_seconds),
        started=_finite(started),
    )


def send_eval(*, step: int, eval_loss: float, rank: int = 0) -> None:
    """The held-out loss after a step; rank 0 tells."""
    _send(EvalMessage, PATIENCE_SECONDS, rank=rank, step=step, eval_loss=_finite(eval_loss))


def send_checkpoint(*, step: int, path: str, rank: int = 0) -> None:
    """A checkpoint was published at ``path``, relative to the checkpoint volume; rank 0 tells."""
    _send(CheckpointMessage, PATIENCE_SECONDS, rank=rank, step=step, path=path)


def send_resume(*, step: int, source: Literal["memory", "storage", "start"], rank: int = 0) -> None:
    """The training goes on from this step, found there; rank 0 tells."""
    _send(ResumeMessage, PATIENCE_SECONDS, rank=rank, step=step, source=source)


def send_sample(*, text: str, rank: int = 0) -> None:
    """Text the model wrote; cut to 2048 characters."""
    _send(SampleMessage, PATIENCE_SECONDS, rank=rank, text=text[:2048])


def send_phase(*, rank: int, phase: PhaseName) -> None:
    """What this rank does from now on."""
    _send(PhaseMessage, PATIENCE_SECONDS, rank=rank, phase=phase)


def send_error(*, rank: int, reason: str, message: str) -> None:
    """Why this rank fails; ``reason`` is CamelCase, ``message`` is cut to 1024 characters."""
    _send(ErrorMessage, PATIENCE_SECONDS, rank=rank, reason=reason[:64], message=message[:1024])


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


_sender: socket.socket | None = None


def _send(kind: type[_Message], patience: float, **fields: Any) -> None:
    # A broken report must not break the training, whatever its cause.
    with contextlib.suppress(Exception):
        name = os.environ.get(SOCKET_ENV)
        if not name:
            return
        message = kind(epoch=_epoch(os.environ), **fields)
        _offer(message.model_dump_json(exclude_none=True).encode(), address(name), patience)


def _epoch(environ: Mapping[str, str]) -> int:
    value = environ.get(EPOCH_ENV, "")
    return int(value) if value.isdigit() else 0


def _offer(datagram: bytes, to: str, patience: float) -> None:
    global _sender
    if len(datagram) > MESSAGE_LIMIT_BYTES:
        return
    if _sender is None:
        _sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    deadline = time.monotonic() + patience
    while True:
        try:
            _sender.sendto(datagram, to)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return
            time.sleep(0.005)
