"""A PostgreSQL of the tests' own: a folder, a port, gone afterwards."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from support.debian import install


def _newest() -> Path | None:
    on_path = shutil.which("postgres")
    if on_path:
        return Path(on_path).resolve()
    return max(Path("/usr/lib/postgresql").glob("*/bin/postgres"), default=None)


def _program(name: str) -> str:
    """One of PostgreSQL's own programs: those in /usr/bin are wrappers for Debian's clusters."""
    found = _newest()
    if found is None:
        install("postgresql")
        found = _newest()
    assert found is not None
    return str(found.with_name(name))


@contextlib.contextmanager
def postgres() -> Iterator[tuple[str, "Postgres"]]:
    """(SQLAlchemy URL, the server)."""
    folder = Path(tempfile.mkdtemp(prefix="drakkar-postgres-"))
    # It refuses to run as root.
    owner = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    os.chown(folder, owner.pw_uid, owner.pw_gid)
    server = Postgres(folder, owner)
    server.run("initdb", "-D", str(folder / "data"), "-U", "drakkar", "-A", "trust", "--no-sync")
    try:
        server.start()
        yield f"postgresql+asyncpg://drakkar@127.0.0.1:{server.port}/postgres", server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


class Postgres:
    """The process; ``stop`` and ``start`` as often as a test likes."""

    def __init__(self, folder: Path, owner: pwd.struct_passwd) -> None:
        self.folder = folder
        self.owner = owner
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs to its end."""
        subprocess.run(
            [_program(program), *arguments],
            user=self.owner.pw_uid,
            group=self.owner.pw_gid,
            cwd=self.folder,
            check=True,
            capture_output=True,
        )

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        self._process = subprocess.Popen(
            [
                _program("postgres"),
                *("-D", str(self.folder / "data"), "-p", str(self.port), "-h", "127.0.0.1"),
                *("-k", str(self.folder), "-c", "fsync=off"),
            ],
            user=self.owner.pw_uid,
            group=self.owner.pw_gid,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while True:
            assert self._process.poll() is None, "postgres ended"
            with contextlib.suppress(subprocess.CalledProcessError):
                self.run("pg_isready", "-h", "127.0.0.1", "-p", str(self.port))
                return
            assert time.monotonic() < deadline, "postgres does not start"
            time.sleep(0.1)

    def stop(self) -> None:
        """End it at once, with all its connections."""
        if self._process is not None:
            # Immediate shutdown: without waiting for clients.
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)
            self._process = None
