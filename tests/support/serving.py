"""A server as its own process, as a pod would run it."""

import contextlib
import json
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from drakkar.routing import digest

DEADLINE = 120.0


class Server:
    """``python -m drakkar_workers.serve`` on a free port; ends with the block."""

    def __init__(self, model, *arguments):
        command = [sys.executable, "-m", "drakkar_workers.serve", "--model", str(model)]
        command += ["--host", "127.0.0.1", "--port", "0", *map(str, arguments)]
        self._start(command)

    def _start(self, command):
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.log = []
        self._lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def _read(self):
        for line in self.process.stderr:
            self.log.append(line)
            self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, pattern):
        """The first log line from here on that matches."""
        deadline = time.monotonic() + DEADLINE
        while True:
            line = self._lines.get(timeout=max(0.1, deadline - time.monotonic()))
            assert line is not None, "the server has ended:\n" + "".join(self.log)
            if found := re.search(pattern, line):
                return found

    def started(self):
        """Wait until the model is loaded."""
        self.port = int(self.wait_for(r"serving .* on port (\d+)")[1])
        return self

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def send(self, path, body=None, *, raw=None, headers=None, method=None):
        """Status and parsed (or plain) body of a request."""
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers or {}, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        with contextlib.suppress(ValueError):
            return status, json.loads(text)
        return status, text.decode()

    def metric(self, name):
        """Sum of a metric's samples."""
        lines = self.send("/metrics")[1].splitlines()
        found = [line for line in lines if line.startswith((f"{name}{{", f"{name} "))]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    def until(self, condition, what):
        """Wait for a condition."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, f"never: {what}\n" + "".join(self.log)
            time.sleep(0.02)

    def engine_pid(self):
        """Process id of the engine."""
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        with Path(path).open() as file:
            return int(file.read().split()[0])

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)


class RouterProcess(Server):
    """``python -m drakkar_workers.serve.router``; speaks like a server."""

    TOKEN = "the operator's"

    def __init__(self, *arguments):
        command = [sys.executable, "-m", "drakkar_workers.serve.router", "--host", "127.0.0.1"]
        command += ["--port", "0", "--control-port", "0", "--token-digest", digest(self.TOKEN)]
        command += arguments
        self._start(command)

    def started(self):
        found = self.wait_for(r"routing on port (\d+), control on port (\d+)")
        self.port, self.control_port = int(found[1]), int(found[2])
        return self

    def exchange(self, table, after=-1, wait=0):
        url = f"http://127.0.0.1:{self.control_port}/v1/exchange?after={after}&wait={wait}"
        body = table.model_dump_json(by_alias=True).encode()
        headers = {"Authorization": f"Bearer {self.TOKEN}"}
        request = urllib.request.Request(url, body, headers)
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            return json.load(answer)
