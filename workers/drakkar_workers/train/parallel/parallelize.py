"""One function that makes a model parallel; every step builds on the one before."""

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from drakkar.v1alpha1.recipes import ParallelConfig
from drakkar_workers.train.models.decoder import Decoder
from drakkar_workers.train.models.experts import mixtures
from drakkar_workers.train.parallel.dispatch import Dispatch
from drakkar_workers.train.parallel.exchange import Exchange
from drakkar_workers.train.parallel.mesh import (
    CONTEXT,
    EXPERT,
    EXPERTS,
    OUTER,
    REPLICATE,
    SHARD,
    STATE,
    TENSOR,
    Layout,
)
from drakkar_workers.train.parallel.tensor import split_tensors


def parallelize(
    model: nn.Module, layout: Layout, config: ParallelConfig, device: torch.device, *, bf16: bool
) -> nn.Module:
    """What to call for a loss with gradients; parameters of ``model`` itself become its parts.

    Matrix products are split first, since sharding splits what is left of them; layers are compiled
    and recompute as whole units, which is also how they are gathered.
    """
    if isinstance(model, Decoder):
        if layout.tensor > 1:
            assert layout.mesh is not None
            split_tensors(model, layout.mesh[TENSOR])
        if layout.context > 1:
            share_sequences(model, layout)
        if layout.expert * layout.tensor > 1:
            share_experts(model, layout)
        for layer in model.blocks:
            layer.recompute = config.recompute
            if config.compile:
                layer.compile()
    if layout.sharded:
        if layout.reduced > 1:
            shard_state(model, layout, bf16=bf16)
        return model
    if layout.reduced > 1:
        return DistributedDataParallel(
            model,
            device_ids=[device.index] if device.type == "cuda" else None,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )
    return model


def share_sequences(model: Decoder, layout: Layout) -> None:
    """Ulysses: each rank has a part of every sequence, attention exchanges it for some heads."""
    assert layout.mesh is not None
    mesh = layout.mesh[CONTEXT]
    model.exchange = Exchange(mesh.get_group(), mesh.get_local_rank(), layout.context)
    for layer in model.blocks:
        layer.self_attn.exchange = model.exchange


def share_experts(model: Decoder, layout: Layout) -> None:
    """Each rank has some experts of every layer; tokens travel to them and back."""
    found = mixtures(model)
    if not found:
        return
    assert layout.mesh is not None
    mesh = layout.mesh[EXPERT, TENSOR]._flatten(EXPERTS)
    for layer in found:
        layer.dispatch = Dispatch(mesh.get_group(), mesh.size())
        for name, parameter in list(layer.experts.named_parameters()):
            part = nn.Parameter(distribute_tensor(parameter, mesh, [Shard(0)]))
            layer.experts.register_parameter(name, part)


def shard_state(model: nn.Module, layout: Layout, *, bf16: bool) -> None:
    """FSDP2 (Zhao et al., arXiv 2304.11277): gather a layer's weights when it is computed."""
    assert layout.mesh is not None
    mesh = _state_mesh(layout, layout.mesh, (SHARD, CONTEXT, EXPERT), STATE)
    policy = (
        MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        if bf16
        else MixedPrecisionPolicy()
    )
    if layout.expert > 1:
        outer = _state_mesh(layout, layout.mesh, (SHARD, CONTEXT), OUTER)
        for mixture in mixtures(model):
            # Tokens of all ranks that share experts have met there: fewer gradients are averaged.
            experts = fully_shard(mixture.experts, mesh=outer, mp_policy=policy)
            experts.set_gradient_divide_factor(float(layout.reduced))
            experts.set_force_sum_reduction_for_comms(True)
    for layer in model.blocks if isinstance(model, Decoder) else ():
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def _state_mesh(
    layout: Layout, mesh: DeviceMesh, names: tuple[str, ...], together: str
) -> DeviceMesh:
    """The ranks that share some state as one dimension; with replicas a second one before it."""
    many = [name for name in names if mesh[name].size() > 1]
    inner = many[0] if many else SHARD
    if len(many) > 1:
        mesh[tuple(many)]._flatten(together)
        inner = together
    return mesh[REPLICATE, inner] if layout.replicate > 1 else mesh[inner]
