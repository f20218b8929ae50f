"""Weights from safetensors, mapped into memory: what is not changed is shared by all processes."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from drakkar_workers.errors import ConfigError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class Weights:
    """The tensors of a folder by their names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = []
        self._where: dict[str, Any] = {}
        for name in _files(folder):
            try:
                opened: Any = safe_open(folder / name, framework="pt")
            except FileNotFoundError:
                raise ConfigError(f"{folder} lacks {name}") from None
            except (OSError, SafetensorError) as error:
                raise ConfigError(f"{folder / name}: {error}") from None
            self._files.append(opened)
            self._where |= dict.fromkeys(opened.keys(), opened)

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor, without a copy. Raises ConfigError if it is missing or of another shape."""
        if name not in self._where:
            raise ConfigError(f"{self._folder}: the weights lack {name}")
        tensor: Tensor = self._where[name].get_tensor(name)
        if tuple(tensor.shape) != shape:
            found = tuple(tensor.shape)
            raise ConfigError(f"{self._folder}: {name} is {found}, but config.json says {shape}")
        return tensor

    def names(self) -> list[str]:
        """Of all tensors."""
        return sorted(self._where)

    def get(self, name: str) -> Tensor:
        """A tensor whatever its shape, without a copy. Raises KeyError."""
        tensor: Tensor = self._where[name].get_tensor(name)
        return tensor

    def maybe(self, name: str, shape: tuple[int, ...]) -> Tensor | None:
        """A tensor if it is there."""
        return self.take(name, shape) if name in self else None

    def __enter__(self) -> "Weights":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files.clear()
        self._where.clear()


def _files(folder: Path) -> list[str]:
    if (folder / SINGLE).is_file():
        return [SINGLE]
    try:
        index = json.loads((folder / INDEX).read_text())
        return sorted(set(index["weight_map"].values()))
    except FileNotFoundError:
        raise ConfigError(f"{folder} holds neither {SINGLE} nor {INDEX}") from None
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{folder / INDEX}: {error!r}") from None
