"""Silent corruption: the same batch through the same weights twice must give the same bits.

A processor that computes wrongly now and then ruins a training without an error. The check costs two
passes over one micro-batch of this rank; it tells nothing of memory that is wrong for good, which both
passes see alike. On GPUs it asks for deterministic kernels (``torch.use_deterministic_algorithms``).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from xxhash import xxh3_64

from drakkar_workers.errors import TrainingError


def check(model: nn.Module, loss: Callable[[], Tensor], where: str) -> None:
    """Compute ``loss`` and its gradients twice and compare them; the model's gradients end as zeros.

    Raises TrainingError with the first parameter whose gradient differs, in the order of the model.
    """
    first, second = _pass(model, loss), _pass(model, loss)
    differing = [name for name in first if first[name] != second[name]]
    if differing:
        raise TrainingError(
            "SilentCorruption",
            f"{where}: two passes over the same batch differ, first in {differing[0]} "
            f"({len(differing)} of {len(first)} tensors); this rank's device computes wrongly",
        )


def _pass(model: nn.Module, loss: Callable[[], Tensor]) -> dict[str, int]:
    """Digests of the loss and of each gradient, of one forward and backward pass."""
    devices = [p.device.index for p in model.parameters() if p.is_cuda][:1]
    # Both passes draw the same random numbers, and the training none of them.
    with torch.random.fork_rng(devices=devices):
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
    found = {"the loss": _digest(value)}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            found[name] = _digest(parameter.grad)
            parameter.grad.zero_()
    return found


def _digest(tensor: Tensor) -> int:
    """Of a tensor's bits: numbers that are none compare too."""
    flat = tensor.detach().contiguous().reshape(-1).cpu()
    return xxh3_64(flat.view(torch.uint8).numpy().tobytes()).intdigest()
