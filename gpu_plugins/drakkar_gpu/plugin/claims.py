"""ResourceClaims that are prepared on this node, kept in a file across restarts."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Given:
    """One device of a claim."""

    request: str
    pool: str
    name: str
    """As in the ResourceSlice."""
    device: str
    """Device.id."""
    cdi: str
    """Name of the CDI device that brings it into a container."""
    admin: bool = False
    """For looking at, beside whoever else holds it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A prepared claim."""

    namespace: str
    name: str
    given: tuple[Given, ...]


@dataclass(frozen=True, slots=True)
class Allocated:
    """One device that kube-scheduler gave to a claim on this node."""

    request: str
    pool: str
    name: str
    admin: bool


def allocated(claim: Object, driver: str, pool: str) -> list[Allocated]:
    """What a claim's status says that this driver gives from this pool."""
    status: Object = claim.get("status") or {}
    devices: Object = (status.get("allocation") or {}).get("devices") or {}
    return [
        Allocated(
            str(result["request"]),
            str(result["pool"]),
            str(result["device"]),
            bool(result.get("adminAccess")),
        )
        for result in devices.get("results") or ()
        if result.get("driver") == driver and result.get("pool") == pool
    ]


class Claims:
    """Prepared claims by their UID. Every change is on disk before it counts."""

    def __init__(self, file: Path) -> None:
        """Raises ValueError if the file is damaged, OSError if it can't be read."""
        self._file = file
        self.items: dict[str, Claim] = {}
        try:
            told = json.loads(file.read_text())
        except FileNotFoundError:
            return
        try:
            self.items = {
                uid: Claim(c["namespace"], c["name"], tuple(Given(**g) for g in c["given"]))
                for uid, c in told.items()
            }
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{file} is no record of claims: {error}") from error

    def put(self, uid: str, claim: Claim) -> None:
        """A claim is prepared."""
        self._save({**self.items, uid: claim})

    def drop(self, uid: str) -> Claim | None:
        """A claim is not used any more; None if it was not prepared."""
        claim = self.items.get(uid)
        if claim is not None:
            self._save({key: value for key, value in self.items.items() if key != uid})
        return claim

    def holders(self) -> dict[str, str]:
        """Device.id -> "namespace/name" of the claim that holds it."""
        return {
            given.device: f"{claim.namespace}/{claim.name}"
            for claim in self.items.values()
            for given in claim.given
            if not given.admin
        }

    def _save(self, items: dict[str, Claim]) -> None:
        temporary = self._file.with_suffix(".tmp")
        temporary.write_text(json.dumps({uid: asdict(claim) for uid, claim in items.items()}))
        temporary.replace(self._file)
        self.items = items
