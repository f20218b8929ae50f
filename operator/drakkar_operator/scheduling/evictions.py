"""What is said of gangs that make room: to their owners and to the owner of the one that waits."""

from collections.abc import Sequence

from drakkar.quantity import show
from drakkar_operator.scheduling.decision import Eviction
from drakkar_operator.scheduling.request import GangRequest
from drakkar_operator.scheduling.workload import Pending, Running

_NAMED = 3
"""As many gangs are named."""


def eviction(victim: Running, gang: Pending) -> Eviction:
    """Makes room for the waiting gang."""
    name, needs = "/".join(gang.key), _needs(gang.request)
    if victim.queue == gang.queue:
        return Eviction(
            victim.key,
            "Preempted",
            gang.key,
            f"makes room for job {name} of priority {gang.priority}, which needs {needs}; "
            f"this job has priority {victim.priority}",
        )
    return Eviction(
        victim.key,
        "Reclaimed",
        gang.key,
        f"queue '{gang.queue}' takes back quota that queue '{victim.queue}' borrowed, "
        f"for job {name}, which needs {needs}",
    )


def waits_for(leaving: Sequence[Running]) -> str:
    """Why a gang waits whose room others are about to leave."""
    names = [f"{namespace}/{name}" for namespace, name in sorted(each.key for each in leaving)]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    jobs = "job" if len(names) == 1 else "jobs"
    return f"waits for {jobs} {', '.join(names[:_NAMED])}{more} to save their state and make room"


def _needs(request: GangRequest) -> str:
    amounts = sorted(request.total.items(), key=lambda item: ("/" not in item[0], item[0]))
    asked = [f"{show(resource, amount)} {resource}" for resource, amount in amounts if amount > 0]
    return asked[0] if asked else f"{request.replicas} pods"
