"""Debian's Prometheus, scraping the metrics of all components."""

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from drakkar.local.packages import ensure_packages
from drakkar.local.progress import Silent
from support.exposition import Component, components
from support.prometheus import RULES, Prometheus, numbers

DEADLINE = 240.0


@pytest.fixture(scope="session")
def debian_prometheus() -> None:
    """The programs prometheus and promtool, installed if need be."""
    ensure_packages(Silent(), {"prometheus": "prometheus", "promtool": "prometheus"})


@pytest.fixture(scope="session")
def prometheus(
    debian_prometheus: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """One that has scraped each component several times and evaluated the rules on that."""
    folder = tmp_path_factory.mktemp("prometheus")
    parts = components()
    server = _serve({f"/{part.name}": part for part in parts})
    target = f"127.0.0.1:{server.server_address[1]}"
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {
                "job_name": part.name,
                "honor_labels": True,
                "metrics_path": f"/{part.name}",
                "static_configs": [{"targets": [target], "labels": dict(part.labels)}],
            }
            for part in parts
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = _free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        running = Prometheus(f"http://127.0.0.1:{port}")
        _wait(running, process, parts, folder / "log")
        yield running
    finally:
        process.terminate()
        process.wait(60)
        server.shutdown()
        server.server_close()


def _wait(
    prometheus: Prometheus, process: subprocess.Popen[bytes], parts: list[Component], log: Path
) -> None:
    """Until each component was scraped four times and all that is recorded of them is there."""
    end = time.monotonic() + DEADLINE
    names = {part.name for part in parts}
    seen: Any = "no answer"
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            # Grouped by address: agents carry the label job of their TrainingJob.
            counts = prometheus.query("count_over_time(up[10m])")
            groups = prometheus.get("rules")["groups"]
            rules = [rule for group in groups for rule in group["rules"]]
            records = [rule["name"] for rule in rules if rule["type"] == "recording"]
            empty = [name for name in records if not numbers(prometheus.query(name))]
        except OSError as error:
            seen = error
        else:
            often = [each for each in counts if int(each["value"][1]) >= 4]
            # A rule that fails is the matter of a test; here it must have been tried.
            tried = all(rule["health"] != "unknown" for rule in rules)
            seen = (counts, f"records without numbers: {empty}")
            if len(often) == len(names) and tried and not empty:
                return
        time.sleep(0.3)
    raise AssertionError(f"Prometheus is not there in time: {seen}\n{log.read_text()}")


def _serve(parts: dict[str, Component]) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            part = parts[self.path.partition("?")[0]]
            part.step()
            content = generate_latest(part.registry)
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
