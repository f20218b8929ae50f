"""TrainingJobs as the API answers them."""

from datetime import UTC, datetime

from pydantic import BaseModel, Field

from drakkar_server.cluster.views import JobView


class JobSummary(BaseModel):
    """A TrainingJob as lists show it."""

    namespace: str
    name: str
    uid: str
    phase: str
    user: str = Field(description="Who submitted it by this server; empty if it came another way.")
    queue: str
    suspended: bool
    created: datetime
    started: datetime | None
    ended: datetime | None
    replicas: int
    ready: int
    ranks: int
    demands: dict[str, float] = Field(description="Devices, or cores of cpu, of the whole gang.")
    step: int | None
    total_steps: int | None
    loss: float | None
    tokens_per_second: float | None
    mfu: float | None
    goodput: float | None
    restarts: int
    reason: str = Field(description="Why it does not run, in the operator's words.")
    queue_position: int | None
    domain: str

    @classmethod
    def of(cls, view: JobView) -> "JobSummary":
        """From the live record."""
        return cls(
            namespace=view.namespace,
            name=view.name,
            uid=view.uid,
            phase=view.phase,
            user=view.user,
            queue=view.queue,
            suspended=view.suspend,
            created=datetime.fromtimestamp(view.created, UTC),
            started=time_of(view.started),
            ended=time_of(view.ended),
            replicas=view.replicas,
            ready=view.ready,
            ranks=view.ranks,
            demands={demand.resource: demand.amount for demand in view.demands},
            step=view.step,
            total_steps=view.total_steps,
            loss=view.loss,
            tokens_per_second=view.tokens_per_second,
            mfu=view.mfu,
            goodput=view.goodput,
            restarts=view.restarts,
            reason=view.reason,
            queue_position=view.position,
            domain=view.domain,
        )


def time_of(seconds: float | None) -> datetime | None:
    """Seconds since the epoch as a time."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
