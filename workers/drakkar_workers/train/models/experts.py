"""Mixture of experts (DeepSeek-V3, arXiv 2412.19437): many MLPs, of which each token uses a few.

Scores are sigmoids; which experts a token uses is chosen by score plus a bias that follows the load
(arXiv 2408.15664), while the weight of what they say is the score alone. Nothing is dropped, and the
loss has no term for balance. Shape suffixes besides the decoder's: N tokens, A experts a token uses,
M tokens times A, G experts, F width of one.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Partial, Replicate
from torch.nn import functional as F  # noqa: N812

from drakkar_workers.train.parallel.dispatch import Dispatch


class Router(nn.Module):
    """Which experts a token uses, and how much each of them counts."""

    def __init__(self, hidden: int, count: int, active: int) -> None:
        super().__init__()
        self.active = active
        self.weight = nn.Parameter(torch.empty(count, hidden))
        self.register_buffer("e_score_correction_bias", torch.zeros(count))
        # Tokens that each expert got since the last update of the bias; not part of the state.
        self.register_buffer("load", torch.zeros(count), persistent=False)

    def forward(self, x_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Experts of each token and their weights, which sum to 1: both of shape (N, A)."""
        weight_GD: Tensor = self.weight
        if isinstance(weight_GD, DTensor):
            # Each rank of a tensor group routes positions of its own: their gradients are summed.
            placed = weight_GD.redistribute(placements=[Replicate()])
            weight_GD = placed.to_local(grad_placements=[Partial()])
        # In float32 whatever the precision: scores that are rounded would choose others.
        with torch.autocast(x_ND.device.type, enabled=False):
            scores_NG = F.linear(x_ND.float(), weight_GD.float()).sigmoid()
        bias_G = self.get_buffer("e_score_correction_bias")
        chosen_NA = (scores_NG.detach() + bias_G).topk(self.active, dim=-1).indices
        weights_NA = scores_NG.gather(-1, chosen_NA)
        if self.training and torch.is_grad_enabled():
            load_G = self.get_buffer("load")
            load_G += torch.bincount(chosen_NA.flatten(), minlength=len(bias_G))
        return chosen_NA, weights_NA / weights_NA.sum(-1, keepdim=True)


class Experts(nn.Module):
    """SwiGLU by many small MLPs at once, each on the tokens that are its."""

    def __init__(self, count: int, hidden: int, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Parameter(torch.empty(count, width, hidden))
        self.up_proj = nn.Parameter(torch.empty(count, width, hidden))
        self.down_proj = nn.Parameter(torch.empty(count, hidden, width))

    def forward(self, x_MD: Tensor, counts_G: Tensor) -> Tensor:
        """Shape (M, D), sorted by expert; ``counts_G`` says how many rows are each one's."""
        gate_MF = _grouped(x_MD, _local(self.gate_proj), counts_G)
        up_MF = _grouped(x_MD, _local(self.up_proj), counts_G)
        return _grouped(F.silu(gate_MF) * up_MF, _local(self.down_proj), counts_G)


class MixtureOfExperts(nn.Module):
    """Takes the place of a layer's MLP."""

    def __init__(self, hidden: int, count: int, active: int, width: int) -> None:
        super().__init__()
        self.gate = Router(hidden, count, active)
        self.experts = Experts(count, hidden, width)
        self.shared_experts: nn.Module | None = None
        """An MLP for every token, if there is one."""
        self.dispatch: Dispatch | None = None
        """Set where several ranks share the experts."""

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Shape (B, T, D)."""
        x_ND = x_BTD.flatten(0, 1)
        chosen_NA, weights_NA = self.gate(x_ND)
        # Rows by expert: the order is that of torch's stable sort, the same on any mesh.
        order_M = chosen_NA.flatten().argsort(stable=True)
        token_M = order_M // chosen_NA.shape[1]
        counts_G = torch.bincount(chosen_NA.flatten(), minlength=len(self.gate.weight))
        x_MD = x_ND[token_M]
        if self.dispatch is None:
            y_MD = self.experts(x_MD, counts_G)
        else:
            y_MD = self.dispatch.through(self.experts, x_MD, counts_G)
        weighted_MD = y_MD * weights_NA.flatten()[order_M, None].to(y_MD.dtype)
        y_ND = torch.zeros_like(x_ND, dtype=y_MD.dtype).index_add(0, token_M, weighted_MD)
        y_BTD = y_ND.view(x_BTD.shape)
        return y_BTD if self.shared_experts is None else y_BTD + self.shared_experts(x_BTD)


def mixtures(model: nn.Module) -> list[MixtureOfExperts]:
    """All of a model's, in order."""
    return [module for module in model.modules() if isinstance(module, MixtureOfExperts)]


@torch.no_grad()
def take_load(layers: Iterable[MixtureOfExperts]) -> Tensor:
    """Tokens that this rank sent to each expert since the last call: shape (layers, G)."""
    loads = [layer.gate.get_buffer("load") for layer in layers]
    taken = torch.stack(loads)
    for load_G in loads:
        load_G.zero_()
    return taken


@torch.no_grad()
def balance(layers: Iterable[MixtureOfExperts], load_LG: Tensor, rate: float) -> float:
    """Make experts with few tokens more likely; ``load_LG`` counts the tokens of all ranks.

    Returns by which share the most loaded expert is above the mean, as a mean over layers: 0 is even.
    """
    mean_L1 = load_LG.float().mean(-1, keepdim=True)
    for layer, missing_G in zip(layers, mean_L1 - load_LG, strict=True):
        layer.gate.get_buffer("e_score_correction_bias").add_(missing_G.sign(), alpha=rate)
    excess_L = load_LG.amax(-1) / mean_L1.squeeze(-1).clamp(min=1) - 1
    return float(excess_L.mean())


def _grouped(x_MK: Tensor, weight_GJK: Tensor, counts_G: Tensor) -> Tensor:
    """Rows of x times the transposed matrix of their group: shape (M, J)."""
    device = x_MK.device.type
    if torch.is_autocast_enabled(device):
        kind = torch.get_autocast_dtype(device)
        x_MK, weight_GJK = x_MK.to(kind), weight_GJK.to(kind)
    ends_G = counts_G.cumsum(0).to(torch.int32)
    return F.grouped_mm(x_MK, weight_GJK.to(x_MK.dtype).transpose(-2, -1), offs=ends_G)


def _local(weight: Tensor) -> Tensor:
    return weight.to_local() if isinstance(weight, DTensor) else weight
