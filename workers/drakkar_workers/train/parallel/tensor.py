"""Tensor and sequence parallel: where each module's weights and activations are split.

Megatron's scheme (arXiv 1909.08053, 2205.05198): columns, then rows of each pair of products, with
activations split by position between them.
"""

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from drakkar_workers.train.models.decoder import Decoder, Shape
from drakkar_workers.train.models.experts import MixtureOfExperts

BY_POSITION = Shard(1)
BY_HEAD = 2


def split_tensors(model: Decoder, mesh: DeviceMesh) -> None:
    """Split a decoder over a mesh of one dimension."""
    parallelize_module(
        model,
        mesh,
        {
            "model.embed_tokens": RowwiseParallel(
                input_layouts=Replicate(), output_layouts=BY_POSITION
            ),
            "model.norm": SequenceParallel(),
            "lm_head": ColwiseParallel(
                input_layouts=BY_POSITION, output_layouts=Shard(-1), use_local_output=False
            ),
        },
    )
    for layer in model.blocks:
        plan = _layer_plan(model.shape)
        if isinstance(layer.mlp, MixtureOfExperts):
            # Each rank routes its own positions; experts are shared by the ranks that have them.
            plan = {k: v for k, v in plan.items() if not k.startswith("mlp")} | _MIXTURE_PLAN
            gate = layer.mlp.gate
            gate.weight = nn.Parameter(distribute_tensor(gate.weight, mesh, [Replicate()]))
        parallelize_module(layer, mesh, plan)
    if model.shape.tie_embeddings:
        # Each got a parameter of its own, with the same part of the vocabulary.
        model.lm_head.weight = model.model.embed_tokens.weight


_MIXTURE_PLAN: dict[str, ParallelStyle] = {
    "post_attention_layernorm": SequenceParallel(use_local_output=True),
    "mlp.shared_experts": PrepareModuleInput(
        input_layouts=(BY_POSITION,), desired_input_layouts=(Replicate(),)
    ),
    "mlp.shared_experts.gate_proj": ColwiseParallel(),
    "mlp.shared_experts.up_proj": ColwiseParallel(),
    "mlp.shared_experts.down_proj": RowwiseParallel(output_layouts=BY_POSITION),
}


def _layer_plan(shape: Shape) -> dict[str, ParallelStyle]:
    gather = PrepareModuleInput(
        input_layouts=(BY_POSITION, None, None), desired_input_layouts=(Replicate(), None, None)
    )
    plan: dict[str, ParallelStyle] = {
        "input_layernorm": SequenceParallel(),
        "self_attn": gather,
        "self_attn.q_proj": ColwiseParallel(),
        "self_attn.k_proj": ColwiseParallel(),
        "self_attn.v_proj": ColwiseParallel(),
        "self_attn.o_proj": RowwiseParallel(output_layouts=BY_POSITION),
        "post_attention_layernorm": SequenceParallel(),
        "mlp": PrepareModuleInput(
            input_layouts=(BY_POSITION,), desired_input_layouts=(Replicate(),)
        ),
        "mlp.gate_proj": ColwiseParallel(),
        "mlp.up_proj": ColwiseParallel(),
        "mlp.down_proj": RowwiseParallel(output_layouts=BY_POSITION),
    }
    if shape.qk_norm:
        for name in ("self_attn.q_norm", "self_attn.k_norm"):
            plan[name] = SequenceParallel(sequence_dim=BY_HEAD, use_local_output=True)
    return plan
