"""What rendering needs to know beyond the job itself."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How training pods run on this cluster; set for the whole operator (chart values)."""

    image: str
    """Image of the trainer container where the job names none."""
    python: str = "python"
    """Python of that image, by name or path."""
    runtime_class: str | None = None
    pull_policy: str | None = None
    cluster_domain: str = "cluster.local"
