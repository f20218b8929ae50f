"""Model FLOP/s utilisation: what the model needs over what the device could do."""

from drakkar_workers.train.model import Shape

PEAK_BF16_FLOPS: dict[str, float] = {
    # Dense, without sparsity; from the vendors' data sheets.
    "B200": 2.25e15,
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "V100": 125e12,
}
"""By a part of the device's name; the first that matches counts."""


def parameter_count(shape: Shape) -> int:
    """Parameters of a decoder; tied embeddings count once."""
    kv_width = shape.kv_heads * shape.head_width
    attention = 2 * shape.hidden * shape.hidden + 2 * shape.hidden * kv_width
    mlp = 3 * shape.hidden * shape.mlp_hidden
    embeddings = (1 if shape.tie_embeddings else 2) * shape.vocab * shape.hidden
    norms = (2 * shape.layers + 1) * shape.hidden
    return shape.layers * (attention + mlp) + embeddings + norms


def flops_per_token(shape: Shape, sequence: int) -> float:
    """FLOPs of forward and backward for one token (PaLM, arXiv 2204.02311, appendix B): 6 per weight
    of a matrix product, and 12 x layers x hidden x sequence for attention, causal or not."""
    kv_width = shape.kv_heads * shape.head_width
    attention = 2 * shape.hidden * shape.hidden + 2 * shape.hidden * kv_width
    weights = shape.layers * (attention + 3 * shape.hidden * shape.mlp_hidden)
    weights += shape.vocab * shape.hidden
    return 6.0 * weights + 12.0 * shape.layers * shape.hidden * sequence


def peak_flops(device_name: str) -> float | None:
    """bf16 FLOP/s of a device by its name, None if it is not in the table (any CPU)."""
    return next((peak for name, peak in PEAK_BF16_FLOPS.items() if name in device_name), None)
