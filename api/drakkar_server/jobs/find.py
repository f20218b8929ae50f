"""Filters and orders of the list of live jobs. Pure."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from drakkar_server.auth.identity import Scope
from drakkar_server.cluster.views import JobView

Order = Literal[
    "created", "name", "namespace", "phase", "queue", "user", "step", "loss", "tokensPerSecond",
    "goodput", "restarts", "accelerators", "position",
]  # fmt: skip
KEYS: Final[dict[str, Callable[[JobView], Any]]] = {
    "created": lambda job: job.created,
    "name": lambda job: job.name,
    "namespace": lambda job: (job.namespace, job.name),
    "phase": lambda job: job.phase,
    "queue": lambda job: job.queue,
    "user": lambda job: job.user,
    "step": lambda job: job.step,
    "loss": lambda job: job.loss,
    "tokensPerSecond": lambda job: job.tokens_per_second,
    "goodput": lambda job: job.goodput,
    "restarts": lambda job: job.restarts,
    "accelerators": lambda job: job.accelerators,
    "position": lambda job: job.position,
}
assert set(KEYS) == set(get_args(Order))


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs; None or "" lets all pass."""

    namespace: str | None = None
    phases: frozenset[str] = frozenset()
    queue: str | None = None
    user: str | None = None
    search: str = ""
    """Part of the name, of any case."""

    def passes(self, job: JobView) -> bool:
        """Whether the job is meant."""
        return (
            (not self.namespace or job.namespace == self.namespace)
            and (not self.phases or job.phase in self.phases)
            and (not self.queue or job.queue == self.queue)
            and (not self.user or job.user == self.user)
            and (not self.search or self.search.lower() in job.name.lower())
        )


def matching(jobs: Iterable[JobView], scope: Scope, wanted: Filter) -> Iterator[JobView]:
    """The jobs that the user may see and asks for."""
    return (job for job in jobs if job.namespace in scope and wanted.passes(job))
