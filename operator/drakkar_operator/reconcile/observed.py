"""What is known of a job at one moment."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from drakkar.protocol import Report
from drakkar_operator.model import JobView, NodeView, PodView

REPORT_TRUSTED_SECONDS = 10.0
HEARTBEAT_TRUSTED_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class CreationError:
    """The API server refused a pod of the job."""

    message: str
    permanent: bool
    """The pod is invalid or forbidden as it is: trying again won't help."""
    since: float = 0.0
    """When the first pod of this placement was refused, seconds since the epoch."""
    last: float = 0.0
    """When one was refused most lately."""


@dataclass(frozen=True, slots=True)
class Context:
    """Facts about the job's surroundings."""

    queue_found: bool = True
    pinned: bool = False
    """kube-scheduler binds the pods."""
    claim_problem: str | None = None
    """Why the checkpoint volume can't be used, if it can't."""
    creation_error: CreationError | None = None
    report_age: float | None = None
    """Seconds since the report was received; None without one."""


ORDINARY = Context()
"""Nothing special."""


@dataclass(frozen=True, slots=True)
class Observed:
    """A job and what is known of its gang."""

    job: JobView
    pods: tuple[PodView, ...]
    nodes: Mapping[str, NodeView]
    report: Report | None
    context: Context
    now: float

    @property
    def by_replica(self) -> dict[int, PodView]:
        """The pod of each replica that has one."""
        return {pod.replica: pod for pod in self.pods if pod.replica is not None}

    @property
    def live(self) -> list[PodView]:
        """The pods that still hold room on their nodes."""
        return [pod for pod in self.pods if not pod.finished]

    @property
    def coordinator(self) -> PodView | None:
        """The pod of replica 0."""
        return self.by_replica.get(0)

    def vouched(self, pod: PodView) -> bool:
        """The coordinator heard this pod's agent just now, whatever its node's kubelet says."""
        age = self.context.report_age
        if self.report is None or age is None or age > REPORT_TRUSTED_SECONDS:
            return False
        return any(
            member.pod == pod.name
            and member.state == "running"
            and member.heartbeat_age_seconds is not None
            and member.heartbeat_age_seconds + age < HEARTBEAT_TRUSTED_SECONDS
            for member in self.report.members
        )

    @property
    def scope(self) -> Literal["pod", "gang"]:
        """What the loss of a pod restarts: without agents the other ranks can't meet a new one."""
        return "gang" if self.job.spec.runtime == "plain" else "pod"
