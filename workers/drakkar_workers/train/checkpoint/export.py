"""The files by which others know a Llama, or a GLM-4.5 if there are experts: Hugging Face's names
and configuration."""

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from drakkar_workers.train.checkpoint.layout import sync, write_synced
from drakkar_workers.train.models.decoder import Shape

WEIGHTS = "model.safetensors"


def export(
    folder: Path, tensors: dict[str, Tensor], *, shape: Shape, tokenizer: Path, vocab_size: int
) -> None:
    """Write weights, config.json and the tokenizer into a checkpoint folder. Raises OSError.

    ``tensors`` are a checkpoint's (``model.NAME`` among them); ``vocab_size`` counts the
    tokenizer's own ids, without the padding of the embedding.
    """
    weights = {
        place: part.contiguous()
        for name, tensor in tensors.items()
        if name.startswith("model.")
        for place, part in _one_by_one(name.removeprefix("model."), tensor)
    }
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    # safetensors makes it 0600, but whoever serves the model may be another user.
    (folder / WEIGHTS).chmod(0o644)
    sync(folder / WEIGHTS)
    _write_json(folder / "config.json", model_config(shape, vocab_size))
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    sync(folder / "tokenizer.json")
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|endoftext|>",
            "model_max_length": shape.max_length,
            "clean_up_tokenization_spaces": False,
        },
    )


def model_config(shape: Shape, vocab_size: int) -> dict[str, Any]:
    """The config.json of transformers' LlamaForCausalLM, or Glm4MoeForCausalLM."""
    kind = _mixture_config(shape) if shape.experts else _LLAMA
    return {
        **kind,
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.mlp_hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_width,
        "max_position_embeddings": shape.max_length,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.norm_epsilon,
        "hidden_act": "silu",
        "tie_word_embeddings": shape.tie_embeddings,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": None,
        "eos_token_id": vocab_size - 1,
        "torch_dtype": "float32",
    }


_LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}


def _mixture_config(shape: Shape) -> dict[str, Any]:
    return {
        "architectures": ["Glm4MoeForCausalLM"],
        "model_type": "glm4_moe",
        "n_routed_experts": shape.experts,
        "num_experts_per_tok": shape.active_experts,
        "moe_intermediate_size": shape.expert_hidden,
        "n_shared_experts": shape.shared_hidden // shape.expert_hidden,
        "first_k_dense_replace": shape.dense_layers,
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        "partial_rotary_factor": 1.0,
        "use_qk_norm": shape.qk_norm,
    }


def _one_by_one(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """Hugging Face's files have each expert by itself."""
    place, experts, matrix = name.rpartition(".experts.")
    if not experts:
        return [(name, tensor)]
    return [(f"{place}.experts.{i}.{matrix}.weight", part) for i, part in enumerate(tensor)]


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_synced(path, (json.dumps(content, indent=2) + "\n").encode())
