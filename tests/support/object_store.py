"""A real S3 server of this machine (nanio): it checks signatures and keeps objects as files."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

BUCKET = "checkpoints"


@dataclass(frozen=True)
class ObjectServer:
    """Where it answers, and the folder in which the bucket's objects lie."""

    endpoint: str
    folder: Path

    @property
    def environ(self) -> dict[str, str]:
        """What a pod gets from spec.checkpoint.storage.objectStore and its Secret."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }

    def objects(self, below: str = "") -> list[str]:
        """Keys, sorted."""
        root = self.folder / BUCKET
        found = [path.relative_to(root) for path in (root / below).rglob("*") if path.is_file()]
        return sorted(str(path) for path in found if not path.parts[0].startswith("."))


@contextlib.contextmanager
def object_server(folder: Path) -> Iterator[ObjectServer]:
    """Serve an empty bucket until the block ends."""
    (folder / BUCKET).mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "nanio.cli", "serve", "--data-dir", str(folder)]
    with (folder.parent / "object-store.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env={**os.environ, "NANIO_ACCESS_KEY": "key", "NANIO_SECRET_KEY": "secret"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    server = ObjectServer(f"http://127.0.0.1:{port}", folder)
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None and time.monotonic() < deadline, "no S3 server"
            with contextlib.suppress(httpx.TransportError):
                httpx.get(server.endpoint)
                break
            time.sleep(0.05)
        yield server
    finally:
        process.terminate()
        process.wait(30)
