"""Model FLOP/s utilisation: what the model needs over what the device could do."""

from drakkar import catalogue
from drakkar_workers.train.models.decoder import Shape


def parameter_count(shape: Shape) -> int:
    """Parameters of a decoder; tied embeddings count once."""
    attention = _attention_weights(shape)
    if shape.qkv_bias:
        attention += (shape.heads + 2 * shape.kv_heads) * shape.head_width
    if shape.qk_norm:
        attention += 2 * shape.head_width
    dense = shape.dense_layers if shape.experts else shape.layers
    mlps = dense * 3 * shape.hidden * shape.mlp_hidden
    mlps += (shape.layers - dense) * _mixture_weights(shape, shape.experts)
    embeddings = (1 if shape.tie_embeddings else 2) * shape.vocab * shape.hidden
    norms = (2 * shape.layers + 1) * shape.hidden
    return shape.layers * attention + mlps + embeddings + norms


def active_parameter_count(shape: Shape) -> int:
    """Parameters that one token uses: all but the experts that it is not sent to."""
    idle = shape.experts - shape.active_experts
    mixed = shape.layers - shape.dense_layers
    return parameter_count(shape) - mixed * idle * 3 * shape.hidden * shape.expert_hidden


def flops_per_token(shape: Shape, sequence: int) -> float:
    """FLOPs of forward and backward for one token (PaLM, arXiv 2204.02311, appendix B): 6 per weight
    of a matrix product that it takes part in, and 12 x layers x hidden x sequence for attention,
    causal or not."""
    dense = shape.dense_layers if shape.experts else shape.layers
    weights = shape.layers * _attention_weights(shape)
    weights += dense * 3 * shape.hidden * shape.mlp_hidden
    weights += (shape.layers - dense) * _mixture_weights(shape, shape.active_experts)
    weights += shape.vocab * shape.hidden
    return 6.0 * weights + 12.0 * shape.layers * shape.heads * shape.head_width * sequence


def _mixture_weights(shape: Shape, experts: int) -> int:
    """Of the router, the shared expert and so many others."""
    mlps = 3 * (experts * shape.expert_hidden + shape.shared_hidden)
    return shape.hidden * (shape.experts + mlps)


def _attention_weights(shape: Shape) -> int:
    return 2 * shape.hidden * (shape.heads + shape.kv_heads) * shape.head_width


def peak_flops(device_name: str, *, bf16: bool = True) -> float | None:
    """Dense FLOP/s of a device by the name that PyTorch gives it, in bf16 or in fp32.

    None for what the catalogue doesn't know, for CPUs, and for a partition (MIG), of which the name
    doesn't tell its share of the chip's units.
    """
    chip = catalogue.find(device_name)
    if chip is None or " MIG " in device_name:
        return None
    return chip.flops("bf16" if bf16 else "fp32")


def doubtful_peak(device_name: str, *, bf16: bool = True) -> str:
    """What to tell of a peak that the catalogue gives but calls unconfirmed; else empty."""
    peak = peak_flops(device_name, bf16=bf16)
    chip = catalogue.find(device_name)
    precision = "bf16" if bf16 else "fp32"
    if peak is None or chip is None or chip.confirmed(f"tflops.{precision}"):
        return ""
    return (
        f"MFU is measured against {peak / 1e12:g} TFLOP/s ({precision}) of {chip.name}, "
        "a figure that is unconfirmed in the catalogue"
    )
