"""State dicts as tensors by name, and the rest as JSON: nothing that is read back can run code."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor

_SCALARS = (str, int, float, bool, type(None))


def split(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """What is no tensor, as JSON can hold it; tensors go into ``tensors`` under their path's name.

    Raises TypeError that names the place of what is neither.
    """
    if isinstance(value, DTensor):
        raise TypeError(
            f"{name} is a DTensor: save a sharded model with torch.distributed.checkpoint, or give "
            "its local parts with shared=False"
        )
    if isinstance(value, Tensor):
        tensors[name] = value.detach()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"dict": [[key, split(v, f"{name}.{key}", tensors)] for key, v in value.items()]}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [split(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]}
    if isinstance(value, _SCALARS):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}: only tensors and plain values are saved")


def join(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of ``split``. Raises KeyError for a tensor that is not there."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: join(v, tensors) for key, v in content}
    items = [join(v, tensors) for v in content]
    return tuple(items) if kind == "tuple" else items
