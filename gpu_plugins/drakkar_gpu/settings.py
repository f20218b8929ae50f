"""What the daemon of a node is told: a file of settings, and its place on the node."""

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from drakkar_gpu.devices.simulated import SimulatedSpec


class SettingsError(Exception):
    """The settings can't be used; the message names the file, the field and what was found."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)


class HealthSettings(_Section):
    """How the devices' health is watched."""

    period_seconds: float = Field(default=5.0, gt=0)
    settle_seconds: float = Field(default=30.0, ge=0)
    """A fault must be gone for so long before its device is handed out again."""
    patience_seconds: float = Field(default=60.0, gt=0)
    """After so long without an answer of the vendor's library no device is trusted."""


class SharesSettings(_Section):
    """Devices that several containers use at once."""

    devices: tuple[Annotated[int, Field(ge=0)], ...] = ()
    each: int = Field(default=1, ge=1, le=64)


class Mount(_Section):
    """A path of the host that containers with a device see, read-only."""

    host: str = Field(pattern="^/")
    container: str = Field(pattern="^/")


class Settings(_Section):
    """The file that the chart writes from its values under ``devices``."""

    simulated: SimulatedSpec | None = None
    """Pretend to have these instead of looking for real ones."""
    vendors: tuple[str, ...] = ()
    """Ask these for their devices, in this order, whether their hardware is seen or not; none: ask
    those whose hardware is seen."""
    health: HealthSettings = HealthSettings()
    shares: SharesSettings = SharesSettings()
    mounts: tuple[Mount, ...] = ()
    cdi: bool = False
    """Give containers of the device plugin their devices by CDI instead of by device files."""
    dra: bool = False
    """Offer the devices to ResourceClaims, too."""


def load(file: Path) -> Settings:
    """Read the settings. Raises SettingsError."""
    try:
        return Settings.model_validate(yaml.safe_load(file.read_text()) or {})
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"{file} can't be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise SettingsError(f"{file}: {where}: {first['msg']}, found {first['input']!r}") from error
