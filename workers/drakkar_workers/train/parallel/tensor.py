"""Tensor and sequence parallel: where each module's weights and activations are split.

Megatron's scheme (arXiv 1909.08053, 2205.05198): columns, then rows of each pair of products, with
activations split by position between them.
"""

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from drakkar_workers.train.models.decoder import Decoder, Shape

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
        parallelize_module(layer, mesh, _layer_plan(model.shape))
    if model.shape.tie_embeddings:
        # Each got a parameter of its own, with the same part of the vocabulary.
        model.lm_head.weight = model.model.embed_tokens.weight


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
