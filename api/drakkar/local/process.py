"""Starting, finding again and stopping the processes of a cluster.

A process is known by its id, the moment it started and the boot it started in, all three
recorded when it starts. An id alone may long belong to somebody else, so a process whose start
does not match is never signalled.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from drakkar.local.errors import ClusterError

_POLL_SECONDS = 0.02
_ADMIN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def admin_path() -> str:
    """PATH with the folders of administration programs, which users often lack."""
    return f"{os.environ.get('PATH', '')}:{_ADMIN_PATH}".lstrip(":")


def run(argv: Sequence[str | Path], *, check: bool = True, stdin: str | None = None) -> str:
    """Run a short command and return what it printed.

    Raises ClusterError with the command and its last words when it fails and `check` is set.
    """
    command = [str(part) for part in argv]
    try:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**os.environ, "PATH": admin_path()},
        )
    except FileNotFoundError:
        raise ClusterError(f"The program '{command[0]}' is missing.") from None
    except subprocess.TimeoutExpired:
        raise ClusterError(f"'{' '.join(command)}' did not end within two minutes.") from None
    if check and done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise ClusterError(f"'{' '.join(command)}' failed: {words[-1] if words else 'no output'}")
    return done.stdout


def wait_until(
    condition: Callable[[], bool], *, seconds: float, what: str, poll: float = _POLL_SECONDS
) -> None:
    """Return once the condition holds; raise ClusterError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} did not happen within {seconds:.0f} s.")
        time.sleep(poll)


def boot_id() -> str:
    """An id that changes when the machine starts anew."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def started_at(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if it has ended.

    A zombie has ended: only its parent, who may never ask, keeps it in the table.
    """
    with contextlib.suppress(ChildProcessError, OSError):
        os.waitpid(pid, os.WNOHANG)
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def children(pid: int) -> list[int]:
    """The ids of a process's children."""
    try:
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


# What this process started and may have to collect, if it lives longer.
_started: list[subprocess.Popen[bytes]] = []


def _collect() -> None:
    """Take the exit status of those children that have ended, so that none stays a zombie."""
    _started[:] = [process for process in list(_started) if process.poll() is None]


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept about a process that was started."""

    name: str
    pid: int
    started: int
    boot: str
    argv: list[str]

    def alive(self) -> bool:
        return self.boot == boot_id() and started_at(self.pid) == self.started


class ProcessTable:
    """The processes of one cluster, each under a name, recorded in a folder.

    The records are files, so that any later command finds the processes again.
    """

    def __init__(self, folder: Path, logs: Path) -> None:
        self._folder = folder
        self._logs = logs

    def record(self, name: str) -> Record | None:
        """The record under a name, whether or not its process still lives."""
        try:
            return Record(**json.loads((self._folder / f"{name}.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def records(self) -> list[Record]:
        """Every record, by name."""
        names = sorted(path.stem for path in self._folder.glob("*.json"))
        return [record for name in names if (record := self.record(name))]

    def pid(self, name: str) -> int | None:
        """The id of a living process, else None."""
        record = self.record(name)
        return record.pid if record and record.alive() else None

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        wrapped: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> int:
        """Start a process that outlives this one, unless it lives already; return its id.

        `wrapped` says that argv is a wrapper (nsenter, unshare) which stays as the parent of the
        program meant: then the program is what gets recorded. `env` replaces this process's
        environment, except that PATH always holds the folders of administration programs.
        """
        living = self.pid(name)
        if living is not None:
            return living
        _collect()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        command = [str(part) for part in argv]
        with self.log(name).open("ab") as log:
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    cwd="/",
                    env={**(os.environ if env is None else env), "PATH": admin_path()},
                )
            except FileNotFoundError:
                raise ClusterError(f"The program '{command[0]}' is missing.") from None
        pid = process.pid
        if wrapped:
            pid = self._wrapped_child(name, process)
        started = started_at(pid)
        if started is None:
            raise ClusterError(f"{name} ended at once: {self.last_words(name)}")
        self._write(Record(name, pid, started, boot_id(), command))
        _started.append(process)
        return pid

    def _wrapped_child(self, name: str, wrapper: subprocess.Popen[bytes]) -> int:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            found = children(wrapper.pid)
            if found:
                return found[0]
            if started_at(wrapper.pid) is None:
                break
            time.sleep(0.002)
        raise ClusterError(f"{name} did not start: {self.last_words(name)}")

    def _write(self, record: Record) -> None:
        path = self._folder / f"{record.name}.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(record)))
        temporary.replace(path)

    def stop(self, name: str, *, grace_seconds: float = 3.0) -> None:
        """End a process: SIGTERM, then SIGKILL once the grace is over. Absent is fine."""
        if grace_seconds > 0:
            self.signal(name, signal.SIGTERM)
            with contextlib.suppress(ClusterError):
                wait_until(lambda: self.pid(name) is None, seconds=grace_seconds, what=name)
        if self.signal(name, signal.SIGKILL):
            wait_until(lambda: self.pid(name) is None, seconds=10, what=f"The end of {name}")
        (self._folder / f"{name}.json").unlink(missing_ok=True)

    def signal(self, name: str, number: signal.Signals) -> bool:
        """Send a signal; False if the process is gone."""
        pid = self.pid(name)
        if pid is None:
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def last_words(self, name: str, lines: int = 3) -> str:
        """The end of a process's log, for an error message."""
        try:
            text = self.log(name).read_text(errors="replace").strip().splitlines()
        except OSError:
            text = []
        return " | ".join(text[-lines:]) or f"its log {self.log(name)} is empty"
