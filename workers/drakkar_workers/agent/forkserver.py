"""The warm process that trainer processes are forked from.

It imports what a trainer imports and then only waits, with a single thread: a fork of it trains
within a tenth of a second, sharing the imported pages, where a new interpreter needs many seconds.
A user's command is started from it too, so that there is one way in which trainers live and die.

Requests and answers are JSON objects on a SOCK_SEQPACKET socket:

    -> {"op": "spawn", "rank": 0, "env": {...}, "argv": [...] or null}
    <- {"op": "spawned", "rank": 0, "pid": 17}, or "refused" with a "message"
    -> {"op": "signal", "signal": 9, "pids": [17]}: to the process groups of those that still run
    <- {"op": "exited", "pid": 17, "status": 9}, as waitpid(2) tells it
    <- {"op": "ready", "seconds": 3.1, "warnings": []}: once, when the imports are done

When the agent's end of the socket closes the server kills its trainers and ends.
"""

import contextlib
import faulthandler
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from drakkar_workers.agent.stacks import STACKS_ENV
from drakkar_workers.agent.syscalls import die_with_parent, set_name
from drakkar_workers.agent.warm import run_script, script_arguments

PRELOAD_MODULE = "drakkar_workers.train.preload"
TRAINER_MODULE = "drakkar_workers.train"
PACKET_LIMIT_BYTES = 128 * 1024
DUMP_SIGNAL = signal.SIGUSR2
"""Makes a forked trainer write the stacks of its threads where its agent reads them."""


class ForkServer:
    """Serves one agent until its socket closes."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._pids: set[int] = set()
        """Trainers that have not been waited for: their pids can't have been used anew."""
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def serve(self) -> None:
        """Answer requests until the agent is gone."""
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        # The agent passes on what the container gets; the server itself must outlast its trainers.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while True:
            poll.poll()
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
            self._reap()
            while True:
                try:
                    packet = self._channel.recv(PACKET_LIMIT_BYTES, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    break
                except ConnectionError:
                    packet = b""
                if not packet:
                    self._signal(self._pids, signal.SIGKILL)
                    return
                self._handle(json.loads(packet))

    def tell(self, **answer: Any) -> None:
        """Send an answer; without an agent there is nobody to tell."""
        with contextlib.suppress(ConnectionError):
            self._channel.send(json.dumps(answer).encode())

    def _handle(self, request: Mapping[str, Any]) -> None:
        match request["op"]:
            case "spawn":
                self._spawn(request["rank"], request["env"], request["argv"])
            case "signal":
                self._signal(self._pids.intersection(request["pids"]), request["signal"])

    def _spawn(self, rank: int, env: Mapping[str, str], argv: Sequence[str] | None) -> None:
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self.tell(op="refused", rank=rank, message=f"fork: {error.strerror}")
            return
        if pid == 0:
            self._become_trainer(parent, env, argv)
        # Both sides set it, so that it holds whichever runs first.
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        self._pids.add(pid)
        self.tell(op="spawned", rank=rank, pid=pid)

    def _signal(self, pids: set[int], number: int) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)

    def _reap(self) -> None:
        while self._pids:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return
            pid = ended.si_pid
            # What the trainer started (loader workers) goes with it; as long as the trainer is not
            # waited for, no other process group can have its number.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            self._pids.discard(pid)
            self.tell(op="exited", pid=pid, status=status)

    def _become_trainer(
        self, parent: int, env: Mapping[str, str], argv: Sequence[str] | None
    ) -> NoReturn:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            os.setpgid(0, 0)
            die_with_parent(parent, signal.SIGKILL)
            for descriptor in (self._channel.fileno(), self._wake_read, self._wake_write):
                os.close(descriptor)
            os.environ.update(env)
            set_name(f"rank-{env.get('RANK', '')}")
            script = script_arguments(argv, os.environ) if argv is not None else None
            if argv is not None and script is None:
                # Python ignores it, other programs rely on it.
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)
                _exec(list(argv))
            faulthandler.register(DUMP_SIGNAL, file=_stacks_file(env), all_threads=True)
            code = run_script(script) if script is not None else _train()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException as error:
            traceback.print_exc()
            _tell(env, error)
        finally:
            # Not sys.exit: it would unwind into the server's own loop and run its exit handlers.
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            os._exit(code)


def _stacks_file(env: Mapping[str, str]) -> int:
    """Descriptor of the file that the agent keeps for this rank's stacks."""
    return int(env.get(STACKS_ENV, sys.stderr.fileno()))


def _tell(env: Mapping[str, str], error: BaseException) -> None:
    """Why the trainer ends, for the agent: a script of the user's does not tell by itself."""
    with contextlib.suppress(Exception):
        importlib.import_module("drakkar_workers.channel").send_error(
            rank=int(env.get("RANK", "0")), reason=type(error).__name__, message=str(error)
        )


def _train() -> int:
    return int(importlib.import_module(TRAINER_MODULE).main([]))


def _exec(argv: list[str]) -> NoReturn:
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        # As a shell reports it: 127 not found, 126 not executable.
        print(f"cannot start the command {argv[0]!r}: {error.strerror}", file=sys.stderr)
        raise SystemExit(127 if isinstance(error, FileNotFoundError) else 126) from None


def _preload() -> list[str]:
    """Import what trainers need; what fails is told, and the trainer will fail on it in full."""
    warnings = []
    try:
        modules = importlib.import_module(PRELOAD_MODULE).MODULES
    except Exception as error:
        return [f"import {PRELOAD_MODULE}: {type(error).__name__}: {error}"[:500]]
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            warnings.append(f"import {name}: {type(error).__name__}: {error}"[:500])
    gc.collect()
    # Objects of the imports are never collected: their pages stay shared with the forks.
    gc.freeze()
    return warnings


def main(argv: Sequence[str]) -> int:
    """``argv``: the socket's descriptor, the agent's pid, and 'warm' to import the trainer."""
    die_with_parent(int(argv[1]), signal.SIGKILL)
    channel = socket.socket(fileno=int(argv[0]))
    channel.set_inheritable(False)
    for stream in (sys.stdout, sys.stderr):
        # A container's log is a pipe: without this, lines would wait for a full block.
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    began = time.monotonic()
    server = ForkServer(channel)
    warnings = _preload() if "warm" in argv[2:] else []
    server.tell(op="ready", seconds=round(time.monotonic() - began, 3), warnings=warnings)
    server.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
