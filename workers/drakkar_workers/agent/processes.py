"""The agent's processes: its fork server, the trainers of the current epoch, and orphans."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from drakkar.exitcodes import ExitCode
from drakkar_workers.agent.forkserver import DUMP_SIGNAL, PACKET_LIMIT_BYTES
from drakkar_workers.agent.resources import out_of_memory_kills
from drakkar_workers.agent.stacks import Stacks, frames
from drakkar_workers.agent.syscalls import adopt_orphans
from drakkar_workers.agent.warm import script_arguments
from drakkar_workers.agent.wire import Exit, RankStatus
from drakkar_workers.channel import (
    ErrorMessage,
    Message,
    PhaseMessage,
    PhaseName,
    StepMessage,
)
from drakkar_workers.memory import marks
from drakkar_workers.memory.marks import Mark

SWEEP_SECONDS = 0.02
"""For the kernel to end what was killed, before it is looked for again."""
ERROR_RELEVANT_SECONDS = 60.0
"""An error that a trainer told longer ago is not why it ended."""


@dataclass(slots=True)
class Trainer:
    """One rank's process; times are monotonic."""

    rank: int
    pid: int | None = None
    step: int | None = None
    messages: int = 0
    phase: PhaseName = "starting"
    error: ErrorMessage | None = None
    error_time: float = 0.0
    signalled: bool = False
    exit: Exit | None = None
    exit_time: float = 0.0


class Processes:
    """Starts, signals and watches trainers; call its methods on the event loop only."""

    def __init__(
        self,
        argv: Sequence[str] | None,
        environ: Mapping[str, str],
        on_change: Callable[[], None],
        before_exit: Callable[[], None],
        descriptors: Mapping[int, int] = MappingProxyType({}),
        stacks: Stacks | None = None,
    ) -> None:
        """``argv``: a user's command, None for the recipe's trainer, kept warm.

        ``on_change`` is called when a process or the fork server has changed, ``before_exit`` before
        a trainer's end is noted: what it has said until then counts. ``descriptors``, the memory
        files of the ranks, are handed down to all of them, as are the files for their ``stacks``.
        """
        self._argv = argv
        self._environ = environ
        self._on_change = on_change
        self._before_exit = before_exit
        self._descriptors = dict(descriptors)
        self._stacks = stacks
        self._server: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._server_failures = 0
        self._closing = False
        self._warm = False
        """Whether the fork server has said that it is ready."""
        self._sweeping = False
        """Whether processes may be left of the epoch before."""
        self.warm_seconds = 0.0
        self.warnings: list[str] = []
        self.epoch = 0
        self.trainers: dict[int, Trainer] = {}
        self._memory_kills = 0

    def open(self) -> None:
        """Start the fork server and watch over all children. Needs a running event loop."""
        adopt_orphans()
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)
        self._start_server()

    async def close(self) -> None:
        """End every process that is left: trainers, the fork server, orphans."""
        self._closing = True
        loop = asyncio.get_running_loop()
        loop.remove_signal_handler(signal.SIGCHLD)
        if self._channel is not None:
            loop.remove_reader(self._channel)
            self._channel.close()
            self._channel = None
        # When the fork server dies its trainers die too (PR_SET_PDEATHSIG), and their children become
        # ours: so until none is left.
        deadline = time.monotonic() + 5.0
        while (children := _children()) and time.monotonic() < deadline:
            _kill(children)
            self._reap()
            await asyncio.sleep(0.01)

    @property
    def ready(self) -> bool:
        """Whether trainers can start: the server is warm, and nothing of others is left."""
        return self._warm and not self._sweeping

    @property
    def alive(self) -> bool:
        """Whether a trainer runs."""
        return any(trainer.exit is None for trainer in self.trainers.values())

    def spawn(self, epoch: int, environments: Mapping[int, Mapping[str, str]]) -> None:
        """Start the trainers of a new epoch: rank -> variables that it has beside the agent's own."""
        assert self._channel is not None and not self.alive
        self.epoch = epoch
        self.trainers = {rank: Trainer(rank) for rank in environments}
        self._memory_kills = out_of_memory_kills()
        for descriptor in self._descriptors.values():
            marks.clear(descriptor)
        if self._stacks is not None:
            self._stacks.clear()
        for rank, env in environments.items():
            self._ask(op="spawn", rank=rank, env=dict(env), argv=self._argv)
        self._on_change()

    def signal(self, number: int) -> None:
        """Signal the process groups of all trainers that run."""
        pids = []
        for trainer in self.trainers.values():
            if trainer.exit is None:
                trainer.signalled = True
                if trainer.pid is not None:
                    pids.append(trainer.pid)
        self._ask(op="signal", signal=number, pids=pids)

    def dump_stacks(self) -> None:
        """Have forked trainers write their stacks; others would not know the signal."""
        if self._recipe_or_script():
            pids = [t.pid for t in self.trainers.values() if t.exit is None and t.pid is not None]
            self._ask(op="signal", signal=int(DUMP_SIGNAL), pids=pids)

    def stacks(self) -> str:
        """What the trainers have written of their stacks, for the log."""
        if self._stacks is None:
            return ""
        written = {rank: self._stacks.read(rank) for rank in sorted(self.trainers)}
        return "\n".join(
            f"stacks of rank {rank}:\n{text}" for rank, text in written.items() if text
        )

    def kill_orphans(self) -> None:
        """End what trainers left behind outside their process groups; not ready until it is gone.

        Children of what is killed become ours and are killed in turn.
        """
        if not self._sweeping:
            self._sweeping = True
            self._sweep()

    def _sweep(self) -> None:
        if self._closing:
            return
        server = {self._server.pid} if self._server is not None else set()
        left = _children() - server
        if left:
            _kill(left)
            asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._swept)
        else:
            self._sweeping = False

    def _swept(self) -> None:
        self._reap()
        self._sweep()
        if not self._sweeping:
            self._on_change()

    def take(self, message: Message) -> bool:
        """Note a trainer's words; False if they are of no trainer that runs here."""
        trainer = self.trainers.get(message.rank)
        if trainer is None or trainer.exit is not None or message.epoch != self.epoch:
            return False
        trainer.messages += 1
        match message:
            case StepMessage():
                trainer.step = message.step
                trainer.phase = "training"
            case PhaseMessage():
                trainer.phase = message.phase
            case ErrorMessage():
                trainer.error = message
                trainer.error_time = time.monotonic()
            case _:
                pass
        return True

    def status(self) -> list[RankStatus]:
        """All trainers of the epoch, by rank."""
        now = time.monotonic()
        return [
            _status(self.trainers[rank], now, self._mark(rank), self._stack(rank))
            for rank in sorted(self.trainers)
        ]

    def _mark(self, rank: int) -> Mark | None:
        descriptor = self._descriptors.get(rank)
        return marks.read(descriptor) if descriptor is not None else None

    def _stack(self, rank: int) -> list[str]:
        return frames(self._stacks.read(rank)) if self._stacks is not None else []

    def _recipe_or_script(self) -> bool:
        return self._argv is None or script_arguments(self._argv, self._environ) is not None

    def _start_server(self) -> None:
        if self._closing:
            return
        if self._sweeping:
            # Whoever still runs holds the GPUs and ports that the next trainers need.
            asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._start_server)
            return
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        warm = ["warm"] if self._recipe_or_script() else []
        command = [sys.executable, "-m", "drakkar_workers.agent.forkserver"]
        with theirs:
            self._server = subprocess.Popen(
                [*command, str(theirs.fileno()), str(os.getpid()), *warm],
                env=dict(self._environ),
                stdin=subprocess.DEVNULL,
                pass_fds=[
                    theirs.fileno(),
                    *self._descriptors.values(),
                    *(self._stacks.descriptors.values() if self._stacks is not None else ()),
                ],
            )
        mine.setblocking(False)
        self._channel = mine
        asyncio.get_running_loop().add_reader(mine, self._hear)

    def _ask(self, **request: object) -> None:
        if self._channel is None:
            return
        try:
            self._channel.send(json.dumps(request).encode())
        except OSError as error:
            # A server that does not listen is as good as dead: SIGCHLD does the rest.
            self.warnings.append(f"fork server does not answer: {error}")
            if self._server is not None:
                self._server.kill()

    def _hear(self) -> None:
        while self._channel is not None:
            try:
                packet = self._channel.recv(PACKET_LIMIT_BYTES)
            except BlockingIOError:
                return
            except ConnectionError:
                packet = b""
            if not packet:
                asyncio.get_running_loop().remove_reader(self._channel)
                return
            answer = json.loads(packet)
            match answer["op"]:
                case "ready":
                    self._warm, self._server_failures = True, 0
                    self.warm_seconds = answer["seconds"]
                    self.warnings += answer["warnings"]
                    self._on_change()
                case "spawned":
                    self.trainers[answer["rank"]].pid = answer["pid"]
                    self._kill_if_signalled(answer["rank"])
                case "refused":
                    self._ended(
                        self.trainers[answer["rank"]],
                        Exit(code=1, reason="SpawnFailed", message=answer["message"]),
                    )
                case "exited":
                    self._exited(answer["pid"], answer["status"])

    def _kill_if_signalled(self, rank: int) -> None:
        # It was asked to end before its pid was known here.
        trainer = self.trainers[rank]
        if trainer.signalled and trainer.pid is not None:
            self._ask(op="signal", signal=int(signal.SIGKILL), pids=[trainer.pid])

    def _exited(self, pid: int, status: int) -> None:
        trainer = next((t for t in self.trainers.values() if t.pid == pid), None)
        if trainer is None or trainer.exit is not None:
            return
        self._before_exit()
        code = os.waitstatus_to_exitcode(status)
        kills = out_of_memory_kills()
        by_memory = code == -signal.SIGKILL and kills > self._memory_kills
        said = trainer.error
        if said is not None and time.monotonic() - trainer.error_time > ERROR_RELEVANT_SECONDS:
            said = None
        told = code >= 0 and said is not None
        self._ended(
            trainer,
            Exit(
                code=code if code >= 0 else None,
                signal=-code if code < 0 else None,
                stopped=trainer.signalled and code not in set(ExitCode) - {ExitCode.CRASHED},
                out_of_memory=by_memory,
                reason=said.reason if told and said else None,
                message=said.message if told and said else None,
            ),
        )

    def _ended(self, trainer: Trainer, end: Exit) -> None:
        trainer.exit, trainer.exit_time = end, time.monotonic()
        self._on_change()

    def _reap(self) -> None:
        """Wait for every child that has ended: the fork server, and orphans as process 1 must."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._server is not None and pid == self._server.pid:
                self._server.returncode = os.waitstatus_to_exitcode(status)
                if not self._closing:
                    self._server_lost()

    def _server_lost(self) -> None:
        """Its trainers have died with it: say so, and start another."""
        assert self._server is not None
        self._hear()
        code = self._server.returncode
        if self._channel is not None:
            asyncio.get_running_loop().remove_reader(self._channel)
            self._channel.close()
        self._server, self._channel, self._warm = None, None, False
        # The kernel ends the trainers with their parent, but not what they have started: as long as
        # one of a process group lives, no other group has its number.
        for trainer in self.trainers.values():
            if trainer.exit is None and trainer.pid is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(trainer.pid, signal.SIGKILL)
        self.kill_orphans()
        self.warnings.append(f"the fork server ended with {code}; starting another")
        for trainer in self.trainers.values():
            if trainer.exit is None:
                text = f"the agent's fork server ended with {code}"
                stopped = trainer.signalled
                self._ended(
                    trainer,
                    Exit(
                        signal=signal.SIGKILL,
                        stopped=stopped,
                        reason="ForkServerLost",
                        message=text,
                    ),
                )
        delay = min(30.0, 0.1 * 2**self._server_failures)
        self._server_failures += 1
        asyncio.get_running_loop().call_later(delay, self._start_server)
        self._on_change()


def _status(trainer: Trainer, now: float, mark: Mark | None, stack: list[str]) -> RankStatus:
    end = trainer.exit
    if end is not None:
        end = end.model_copy(update={"age_seconds": max(0.0, now - trainer.exit_time)})
    return RankStatus(
        rank=trainer.rank,
        step=trainer.step,
        phase=trainer.phase,
        messages=trainer.messages,
        process_state=_process_state(trainer.pid) if end is None else None,
        passed=mark.passed if mark else None,
        stage=mark.stage if mark else None,
        alone_seconds={name: mark.seconds[name] for name in marks.ALONE} if mark else {},
        stack=stack,
        exit=end,
    )


def _process_state(pid: int | None) -> str | None:
    """The state letter of proc(5), None if there is no such process."""
    if pid is None:
        return None
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return line.rpartition(")")[2].split()[0]


def _kill(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _children() -> set[int]:
    """Direct children of this process."""
    me = str(os.getpid())
    found: set[int] = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):
            if path.read_text().rpartition(")")[2].split()[1] == me:
                found.add(int(path.parent.name))
    return found
