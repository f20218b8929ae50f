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
    mlp = 3 * shape.hidden * shape.mlp_hidden
    embeddings = (1 if shape.tie_embeddings else 2) * shape.vocab * shape.hidden
    norms = (2 * shape.layers + 1) * shape.hidden
    return shape.layers * (attention + mlp) + embeddings + norms


def flops_per_token(shape: Shape, sequence: int) -> float:
    """FLOPs of forward and backward for one token (PaLM, arXiv 2204.02311, appendix B): 6 per weight
    of a matrix product, and 12 x layers x hidden x sequence for attention, causal or not."""
    weights = shape.layers * (_attention_weights(shape) + 3 * shape.hidden * shape.mlp_hidden)
    weights += shape.vocab * shape.hidden
    return 6.0 * weights + 12.0 * shape.layers * shape.heads * shape.head_width * sequence


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
