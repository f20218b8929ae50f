"""Logs of all ranks as one stream, across restarts and replacements of pods."""

import heapq
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from drakkar.cli import progress
from drakkar.client import Client, ClientError, InvalidError, NotFoundError, UnreachableError
from drakkar.constants import LABEL_REPLICA, TRAINER_CONTAINER

_POLL_SECONDS: Final = 1.0
_LAST_WORDS_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Line:
    """One line of one replica's trainer container."""

    replica: int
    time: str
    """RFC 3339, as the kubelet stamped it."""
    text: str


def replica_of(rank: int, replicas: int, processes: int) -> int:
    """The replica that runs a rank. Raises NotFoundError if the job has no such rank."""
    if not 0 <= rank < replicas * processes:
        raise NotFoundError(f"The job has the ranks 0 to {replicas * processes - 1}, not {rank}.")
    return rank // processes


def container_of(pod: dict[str, Any]) -> str:
    """Name of the container that trains: trainer, or the first."""
    names = [str(item["name"]) for item in pod["spec"]["containers"]]
    return TRAINER_CONTAINER if TRAINER_CONTAINER in names else names[0]


def split(replica: int, line: str) -> Line:
    """A line of the log API with timestamps."""
    stamp, _, text = line.partition(" ")
    return Line(replica, stamp, text)


class LogReader:
    """The logs of one job's pods."""

    def __init__(
        self, client: Client, job: str, namespace: str, replica: int | None, tail: int | None
    ) -> None:
        self._client = client
        self._job = job
        self._namespace = namespace
        self._replica = replica
        self._tail = tail
        self._lines: queue.SimpleQueue[Line] = queue.SimpleQueue()
        self._seen: dict[str, str] = {}
        """Pod UID -> time of its last line that was read."""
        self._readers: dict[str, threading.Thread] = {}
        self._failures: queue.SimpleQueue[ClientError] = queue.SimpleQueue()

    def so_far(self) -> Iterator[Line]:
        """What the present pods have written, in order of time."""
        streams = [self._stored(replica, pod) for replica, pod in self._pods()]
        return heapq.merge(*streams, key=lambda line: line.time)

    def follow(self) -> Iterator[Line]:
        """Lines as they are written, until the job is finished or deleted."""
        ended = False
        quiet_since = time.monotonic()
        while True:
            try:
                ended = ended or self._ended()
                for replica, pod in self._pods():
                    self._start(replica, pod, again=not ended)
            except UnreachableError:
                # The API server restarts: the streams resume where they were.
                pass
            for line in self._drain(_POLL_SECONDS):
                quiet_since = time.monotonic()
                yield line
            if not self._failures.empty():
                raise self._failures.get()
            busy = any(reader.is_alive() for reader in self._readers.values())
            # The stream of a pod whose node is gone may never end.
            if ended and (not busy or time.monotonic() - quiet_since > _LAST_WORDS_SECONDS):
                yield from self._drain(0.0)
                return

    def _drain(self, wait: float) -> Iterator[Line]:
        timeout = wait
        while True:
            try:
                yield self._lines.get(timeout=timeout) if timeout else self._lines.get_nowait()
            except queue.Empty:
                return
            timeout = 0.05 if wait else 0.0

    def _ended(self) -> bool:
        try:
            return progress.finished(self._client.training_jobs.get(self._job, self._namespace))
        except NotFoundError:
            return True

    def _pods(self) -> list[tuple[int, dict[str, Any]]]:
        found = []
        for pod in self._client.pods(self._job, self._namespace):
            replica = int(pod["metadata"]["labels"].get(LABEL_REPLICA, 0))
            if self._replica is None or replica == self._replica:
                found.append((replica, pod))
        return sorted(found, key=lambda item: item[0])

    def _stored(self, replica: int, pod: dict[str, Any]) -> Iterator[Line]:
        query = {"container": container_of(pod), "timestamps": "true"}
        if self._tail is not None:
            query["tailLines"] = str(self._tail)
        try:
            for line in self._client.log_lines(
                pod["metadata"]["name"], self._namespace, target="", **query
            ):
                yield split(replica, line)
        except (InvalidError, NotFoundError):
            # The container has not started yet, or the pod has just gone.
            return

    def _start(self, replica: int, pod: dict[str, Any], *, again: bool) -> None:
        """Read a pod that is not being read; one that was read before only with ``again``."""
        uid = str(pod["metadata"]["uid"])
        reader = self._readers.get(uid)
        if reader is not None and (reader.is_alive() or not again):
            return
        statuses = pod.get("status", {}).get("containerStatuses") or []
        states = [item.get("state", {}) for item in statuses if item["name"] == container_of(pod)]
        running = any("running" in state for state in states)
        terminated = any("terminated" in state for state in states)
        if not running and (not terminated or reader is not None):
            return
        self._readers[uid] = threading.Thread(
            target=self._read, args=(replica, pod, uid), daemon=True, name=f"log-{replica}"
        )
        self._readers[uid].start()

    def _read(self, replica: int, pod: dict[str, Any], uid: str) -> None:
        query = {"container": container_of(pod), "timestamps": "true", "follow": "true"}
        last = self._seen.get(uid, "")
        if last:
            # sinceTime counts whole seconds, so the lines of that second come again.
            query["sinceTime"] = last.split(".")[0].rstrip("Z") + "Z"
        elif self._tail is not None:
            query["tailLines"] = str(self._tail)
        try:
            for text in self._client.log_lines(pod["metadata"]["name"], self._namespace, **query):
                line = split(replica, text)
                if line.time > last:
                    self._seen[uid] = line.time
                    self._lines.put(line)
        except (UnreachableError, InvalidError, NotFoundError):
            # The node or the API server is away, or the pod was replaced: the loop looks again.
            return
        except ClientError as error:
            if error.code < 500:
                self._failures.put(error)
