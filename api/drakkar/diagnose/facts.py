"""What a diagnosis is made from, and what it is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Facts:
    """A TrainingJob or InferenceService with what belongs to it, as the API server has it."""

    subject: Object
    pods: Sequence[Object] = ()
    events: Sequence[Object] = ()
    """Of the object and its pods, oldest first."""
    logs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Pod -> its last lines; those of a container before it restarted come first."""

    @property
    def status(self) -> Object:
        """The object's status, maybe empty."""
        return self.subject.get("status") or {}

    @property
    def restarts(self) -> Sequence[Object]:
        """Interruptions, oldest first."""
        return self.status.get("restarts") or ()

    def condition(self, kind: str) -> Object:
        """A condition, or an empty one."""
        for each in self.status.get("conditions") or ():
            if each.get("type") == kind:
                return dict(each)
        return {}

    def containers(self) -> Iterator[tuple[str, Object]]:
        """(pod, status of one of its containers)."""
        for pod in self.pods:
            status = pod.get("status") or {}
            for kind in ("initContainerStatuses", "containerStatuses"):
                for each in status.get(kind) or ():
                    yield str(pod["metadata"]["name"]), each


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    cause: str
    """A sentence."""
    evidence: tuple[str, ...]
    """Where it shows, in the words of those who said it."""
    advice: str
    """What to do."""
