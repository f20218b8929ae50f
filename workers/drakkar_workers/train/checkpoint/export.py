"""The files by which others know a Llama: Hugging Face's names and configuration."""

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
        name.removeprefix("model."): tensor.contiguous()
        for name, tensor in tensors.items()
        if name.startswith("model.")
    }
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    # safetensors makes it 0600, but whoever serves the model may be another user.
    (folder / WEIGHTS).chmod(0o644)
    sync(folder / WEIGHTS)
    _write_json(folder / "config.json", llama_config(shape, vocab_size))
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


def llama_config(shape: Shape, vocab_size: int) -> dict[str, Any]:
    """The config.json of transformers' LlamaForCausalLM."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
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


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_synced(path, (json.dumps(content, indent=2) + "\n").encode())
