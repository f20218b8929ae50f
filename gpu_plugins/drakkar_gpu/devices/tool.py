"""Run a vendor's command-line tool: fixed arguments, no shell, and never for longer than allowed."""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from drakkar_gpu.devices.base import VendorError

MAX_OUTPUT = 4 << 20
"""Bytes; the longest known answer (npu-smi of 16 devices with processes) has some 10 KiB."""


class Tool:
    """One program. Calling it with arguments returns what it prints, or raises VendorError."""

    def __init__(self, name: str, *, paths: Sequence[str] = (), timeout: float = 10.0) -> None:
        """``paths``: where else it is installed, if it is not on PATH. ``timeout`` in seconds."""
        self.name = name
        self._paths = paths
        self._timeout = timeout
        self._hanging: subprocess.Popen[bytes] | None = None

    def find(self) -> str | None:
        """Full path of the program, or None if this machine does not have it."""
        found = shutil.which(self.name)
        return found or next((path for path in self._paths if os.access(path, os.X_OK)), None)

    def __call__(self, *arguments: str) -> str:
        """What ``name arguments...`` prints, as text; bytes that are not UTF-8 are replaced."""
        command = " ".join((self.name, *arguments))
        if self._hanging is not None and self._hanging.poll() is None:
            # A driver that hangs keeps its callers in the kernel, where no signal ends them: one
            # such process is enough.
            raise VendorError(f"{command}: an earlier call (pid {self._hanging.pid}) still hangs")
        self._hanging = None
        program = self.find()
        if program is None:
            raise VendorError(f"{self.name} is not installed: not on PATH{self._also()}")
        try:
            with tempfile.TemporaryFile() as errors:
                return self._run([program, *arguments], command, errors)
        except OSError as error:
            raise VendorError(f"{command}: {error.strerror or error}") from error

    def _run(self, argv: Sequence[str], command: str, errors: IO[bytes]) -> str:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        )
        output = self._output(process, command)
        if process.returncode:
            errors.seek(0)
            said = (errors.read(2000) or output[-2000:]).decode(errors="replace").strip()
            raise VendorError(
                f"{command}: exit status {process.returncode}: {said or 'no message'}"
            )
        return output.decode(errors="replace")

    def _also(self) -> str:
        return f", nor at {', '.join(self._paths)}" if self._paths else ""

    def _output(self, process: "subprocess.Popen[bytes]", command: str) -> bytes:
        assert process.stdout is not None
        collected: list[bytes] = []
        reader = threading.Thread(
            target=_read, args=(process.stdout, collected), name=self.name, daemon=True
        )
        reader.start()
        reader.join(self._timeout)
        output = collected[0] if collected else b""
        if not reader.is_alive() and len(output) <= MAX_OUTPUT:
            try:
                process.wait(self._timeout)
                return output
            except subprocess.TimeoutExpired:
                pass
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        try:
            process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._hanging = process
        if len(output) > MAX_OUTPUT:
            raise VendorError(f"{command}: printed more than {MAX_OUTPUT >> 20} MiB")
        raise VendorError(f"{command}: no answer within {self._timeout:g} s")


def _read(stream: IO[bytes], collected: list[bytes]) -> None:
    with stream, suppress(OSError, ValueError):
        collected.append(stream.read(MAX_OUTPUT + 1))


def read(path: Path, *, limit: int = 1 << 16) -> str | None:
    """The text of a small file below /sys or /proc, stripped; None if it can't be read."""
    try:
        with path.open("rb") as file:
            return file.read(limit).decode(errors="replace").strip()
    except OSError:
        return None
