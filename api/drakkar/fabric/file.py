"""Places of nodes from a file::

node-1: {zone: a, block: b1, rack: r1}
node-2: {zone: a, block: b1, rack: r2}
"""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from drakkar.fabric.infiniband import FabricError


class _Place(BaseModel):
    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    zone: str | None = None
    block: str | None = None
    rack: str | None = None


_FILE = TypeAdapter(dict[str, _Place])


def load(file: Path) -> dict[str, dict[str, str]]:
    """Read a file of places. Raises FabricError, which names what is wrong with it."""
    try:
        found = _FILE.validate_python(yaml.safe_load(file.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FabricError(f"{file} can't be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise FabricError(f"{file}: {where}: {first['msg']}; write zone, block or rack") from error
    return {node: place.model_dump(exclude_none=True) for node, place in found.items()}
