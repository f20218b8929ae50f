"""How long the agents of a gang wait for what."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """All in seconds."""

    heartbeat: float = 0.5
    """A peer tells its state at least this often."""
    peer_timeout: float = 5.0
    """Silence after which a peer counts as lost, and after which a peer stops its own trainers."""
    grace: float = 25.0
    """For trainers to save their state after SIGTERM; below the pod's own grace period."""
    kill_delay: float = 0.0
    """Between SIGTERM and SIGKILL when trainers are stopped for a restart. Their collectives are
    stuck by then, so that most have nothing to gain from a delay."""
    stuck: float = 60.0
    """For a replica to stop its trainers; one that the kernel holds (state D) does not die."""
    drain: float = 10.0
    """For the other ranks to leave after some left with their state saved."""
    farewell: float = 5.0
    """The coordinator stays this long for peers that have not seen the end."""
    linger: float = 1.0
    """The coordinator stays this long for the operator to fetch the last report."""
    stable: float = 600.0
    """Trainers that report no steps count as making progress when they have run this long."""
    backoff_limit: float = 300.0
    """Longest wait before a restart."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], replicas: int) -> "Timing":
        """Defaults for a gang of this size, each overridden by DRAKKAR_<NAME>_SECONDS.

        Raises ValueError that names the variable.
        """
        # One coordinator hears them all: at most some 500 heartbeats a second.
        heartbeat = min(4.0, max(0.5, replicas / 500))
        values = {"heartbeat": heartbeat, "peer_timeout": max(5.0, 4 * heartbeat)}
        for name in cls.__dataclass_fields__:
            variable = f"DRAKKAR_{name.upper()}_SECONDS"
            if variable not in environ:
                continue
            try:
                values[name] = float(environ[variable])
            except ValueError:
                raise ValueError(
                    f"{variable}: {environ[variable]!r} is not a number of seconds, such as 5"
                ) from None
            if not 0 <= values[name] < 1e6:
                raise ValueError(f"{variable}: {environ[variable]} must be from 0 to 999999")
        return cls(**values)
