"""The agent's configuration, read from the environment that the operator gives the pod."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from drakkar.protocol import GANG_ENV, GangConfig, PodFacts
from drakkar_workers.agent.termination import DEFAULT_PATH, PATH_ENV
from drakkar_workers.agent.timing import Timing

BIND_ENV = "DRAKKAR_AGENT_BIND"
PEER_RATE_ENV = "DRAKKAR_PEER_BYTES_PER_SECOND"
DEFAULT_PEER_RATE = 512e6


@dataclass(frozen=True, slots=True)
class Settings:
    """All that an agent is told before it starts."""

    gang: GangConfig
    pod: PodFacts
    timing: Timing
    command: tuple[str, ...] | None
    """A user's command to run as trainer; None for the gang's recipe."""
    bind: str | None
    """Address to serve at, all by default."""
    termination_log: Path
    peer_bytes_per_second: float = DEFAULT_PEER_RATE
    """At which checkpoints in memory are sent to a peer."""

    @property
    def coordinator(self) -> bool:
        """Whether this agent is the gang's coordinator."""
        return self.pod.replica_index == 0


def load(environ: Mapping[str, str], command: Sequence[str]) -> Settings:
    """Raises ValueError that names the variable, what was found and what to do."""
    text = environ.get(GANG_ENV)
    if not text:
        raise ValueError(
            f"{GANG_ENV} is not set; the operator sets it to the gang's configuration as JSON"
        )
    try:
        gang = GangConfig.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(f"{GANG_ENV}: {_first(error)}") from None
    try:
        pod = PodFacts.from_environ(dict(environ))
    except KeyError as error:
        raise ValueError(f"{error.args[0]} is not set; the pod's downward API sets it") from None
    except ValidationError as error:
        raise ValueError(f"pod facts DRAKKAR_*: {_first(error)}") from None
    if gang.replicas < 1 or gang.processes_per_replica < 1:
        raise ValueError(
            f"{GANG_ENV}: replicas ({gang.replicas}) and processesPerReplica "
            f"({gang.processes_per_replica}) must be at least 1"
        )
    if not 0 <= pod.replica_index < gang.replicas:
        raise ValueError(
            f"DRAKKAR_REPLICA_INDEX: {pod.replica_index} is not of this gang, whose replicas are "
            f"0 to {gang.replicas - 1}"
        )
    if not command and gang.recipe is None:
        raise ValueError(
            "nothing to run: give a command after '--', or set spec.recipe in the TrainingJob"
        )
    return Settings(
        gang=gang,
        pod=pod,
        timing=Timing.from_environ(environ, gang.replicas),
        command=tuple(command) or None,
        bind=environ.get(BIND_ENV) or None,
        termination_log=Path(environ.get(PATH_ENV) or DEFAULT_PATH),
        peer_bytes_per_second=_peer_rate(environ),
    )


def _peer_rate(environ: Mapping[str, str]) -> float:
    text = environ.get(PEER_RATE_ENV, "")
    if not text:
        return DEFAULT_PEER_RATE
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 1 <= rate < 1e15:
        raise ValueError(f"{PEER_RATE_ENV}: {text!r} is not a number of bytes, such as 512e6")
    return rate


def _first(error: ValidationError) -> str:
    item = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in item["loc"]) or "the value"
    return f"{place}: {item['msg']}"
