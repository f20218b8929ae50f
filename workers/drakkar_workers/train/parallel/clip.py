"""One gradient norm over parameters that lie on different meshes."""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def clip_gradients(model: nn.Module, max_norm: float) -> Tensor:
    """Scale gradients down to a norm of ``max_norm`` over all ranks; their norm before, a scalar."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    # Norms of tensors of one mesh are taken and reduced together.
    groups: dict[object, list[Tensor]] = {}
    for gradient in gradients:
        mesh = gradient.device_mesh if isinstance(gradient, DTensor) else None
        groups.setdefault(mesh, []).append(gradient)
    norms = []
    for group in groups.values():
        norm = nn.utils.get_total_norm(group)
        norms.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    total = torch.linalg.vector_norm(torch.stack(norms)) if len(norms) > 1 else norms[0]
    factor = (max_norm / (total + 1e-6)).clamp(max=1.0)
    parts = [g.to_local() if isinstance(g, DTensor) else g for g in gradients]
    torch._foreach_mul_(parts, factor)
    return total
