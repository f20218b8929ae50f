"""What a checkpoint holds: tensors that all ranks share, and what each rank has for itself."""

import json
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

MOMENTS = ("exp_avg", "exp_avg_sq")


def tensors_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights, lasting buffers and AdamW's moments by name: ``model.NAME``,
    ``optimizer.NAME.exp_avg``, ...

    Tied weights come once, frozen ones not at all. The moments must exist (``prepare_optimizer``).
    Loading in place into these tensors restores both.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        tensors[f"model.{name}"] = parameter.detach()
        for moment in MOMENTS:
            tensors[f"optimizer.{name}.{moment}"] = optimizer.state[parameter][moment]
    for path, module in model.named_modules():
        for name, buffer in module.named_buffers(prefix=path, recurse=False):
            if name.rpartition(".")[2] not in module._non_persistent_buffers_set:
                tensors[f"model.{name}"] = buffer
    return tensors


def local_parts(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What of each tensor this rank has, in the same memory."""
    return {name: _local(tensor) for name, tensor in tensors.items()}


def whole(tensors: dict[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """The weights among a checkpoint's tensors in host memory, gathered one at a time.

    Every rank calls it; those that don't ``keep`` them get an empty dictionary.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not name.startswith("model."):
            continue
        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if keep:
            found[name] = full.cpu()
    return found


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def prepare_optimizer(optimizer: torch.optim.Optimizer, step: int) -> None:
    """Give AdamW its moments, as zeros, before its first step, and its count of steps done."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            # AdamW skips its own set-up for a parameter that has any state.
            state["step"] = torch.tensor(float(step), device=parameter.device)
            for moment in MOMENTS:
                state.setdefault(moment, torch.zeros_like(parameter))


class Staging:
    """A copy of the tensors in host memory, made in buffers that are used again and again.

    Fresh buffers would cost page faults each time, more than the copy itself.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def copy(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The copies by name; valid until the next call."""
        for name, tensor in local_parts(tensors).items():
            if name not in self._buffers:
                self._buffers[name] = torch.empty_like(
                    tensor, device="cpu", pin_memory=tensor.is_cuda
                )
            self._buffers[name].copy_(tensor, non_blocking=tensor.is_cuda)
        if any(tensor.is_cuda for tensor in tensors.values()):
            torch.cuda.synchronize()
        return {name: self._placed(name, tensor) for name, tensor in tensors.items()}

    def _placed(self, name: str, tensor: Tensor) -> Tensor:
        """A copy that says which part of the tensor it is, as DCP wants to know."""
        if not isinstance(tensor, DTensor):
            return self._buffers[name]
        # Not from_local, which would move the copy to the mesh's device.
        return DTensor(self._buffers[name], tensor._spec, requires_grad=False)


@dataclass(frozen=True, slots=True)
class RandomState:
    """All random generators of one rank; JSON, since a pickle from a volume could run code."""

    torch_cpu: str
    torch_cuda: str | None
    numpy: list[Any]
    python: list[Any]

    @classmethod
    def capture(cls, device: torch.device) -> "RandomState":
        """The state now."""
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
        version, internal, following = random.getstate()
        return cls(
            torch_cpu=_hex(torch.get_rng_state()),
            torch_cuda=_hex(cuda) if cuda is not None else None,
            numpy=[name, np.asarray(keys).tolist(), position, has_gauss, gauss],
            python=[version, list(internal), following],
        )

    def restore(self, device: torch.device) -> None:
        """Put the generators back to this state."""
        torch.set_rng_state(_tensor(self.torch_cpu))
        if self.torch_cuda is not None and device.type == "cuda":
            torch.cuda.set_rng_state(_tensor(self.torch_cuda), device)
        name, keys, position, has_gauss, gauss = self.numpy
        np.random.set_state((name, np.asarray(keys, np.uint32), position, has_gauss, gauss))
        version, internal, following = self.python
        random.setstate((version, tuple(internal), following))

    def dump(self) -> bytes:
        """As JSON."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(fields).encode()

    @classmethod
    def load(cls, content: bytes) -> "RandomState":
        """From JSON. Raises ValueError, TypeError if it is none of ours."""
        return cls(**json.loads(content))


def seed_all(seed: int) -> None:
    """Seed every generator of this process."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def rank_file(rank: int) -> str:
    """Name of the file with a rank's own state."""
    return f"rank-{rank:05d}.json"


def _hex(state: Tensor) -> str:
    return state.numpy().tobytes().hex()


def _tensor(text: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
