"""A small API server over real HTTP, and the command run against it."""

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml
from typer.testing import CliRunner, Result

from drakkar.cli.main import app
from drakkar.client import Client

Object = dict[str, Any]


@dataclass
class Answer:
    """What a path answers: an object, a list of chunks to stream, or text."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class FakeApi:
    """Answers by (method, path); several answers of a path come in turn, the last one stays."""

    url: str = ""
    answers: dict[tuple[str, str], list[Answer]] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)

    def on(self, method: str, path: str, body: Any, status: int = 200, **headers: str) -> None:
        """Add an answer; of headers, _ stands for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers.setdefault((method, path), []).append(Answer(body, status, named))

    def refuse(self, method: str, path: str, status: int, **details: Any) -> None:
        """Add a refusal (meta/v1 Status)."""
        self.on(method, path, {"kind": "Status", "code": status, **details}, status)

    def sent(self, method: str) -> list[tuple[str, dict[str, str], Any]]:
        """(path, query, body) of the requests of a method."""
        return [
            (path, query, body) for found, path, query, body in self.requests if found == method
        ]


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """A server that answers 404 as Kubernetes does, until told otherwise."""
    fake = FakeApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _serve(self) -> None:
            url = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            query = dict(parse_qsl(url.query))
            fake.requests.append((self.command, url.path, query, body))
            method = "WATCH" if "watch" in query else self.command
            found = fake.answers.get((method, url.path))
            if not found:
                self._send(404, b"404 page not found\n")
                return
            answer = found.pop(0) if len(found) > 1 else found[0]
            if isinstance(answer.body, list):
                self._stream(answer.body)
            elif isinstance(answer.body, str):
                self._send(answer.status, answer.body.encode(), answer.headers)
            else:
                self._send(answer.status, json.dumps(answer.body).encode(), answer.headers)

        def _send(
            self, status: int, content: bytes, headers: Mapping[str, str] | None = None
        ) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _stream(self, chunks: list[Any]) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in chunks:
                text = chunk if isinstance(chunk, str) else json.dumps(chunk)
                content = text.encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
            self.wfile.write(b"0\r\n\r\n")

        do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield fake
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def kubeconfig(api: FakeApi, tmp_path: Path) -> Path:
    """A kubeconfig of that server."""
    return write_kubeconfig(tmp_path / "kubeconfig", api.url)


def write_kubeconfig(path: Path, url: str, namespace: str = "default") -> Path:
    context = {"cluster": "c", "user": "u", "namespace": namespace}
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": url}}],
                "users": [{"name": "u", "user": {"token": "secret"}}],
                "contexts": [{"name": "x", "context": context}],
                "current-context": "x",
            }
        )
    )
    return path


@pytest.fixture
def client(kubeconfig: Path) -> Client:
    """A client of that server."""
    return Client.connect(str(kubeconfig))


@pytest.fixture
def drakkar(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command with arguments."""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))

    def run(*arguments: str, input: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=input)

    return run
