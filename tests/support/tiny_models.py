"""Small random models, saved as transformers saves them."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from drakkar_workers.data.tokenizer import bytes_tokenizer

SIZES = {
    "vocab_size": 257,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 256,
    "pad_token_id": None,
    # Wide enough that no two logits are alike by chance.
    "initializer_range": 0.3,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
}
KINDS = {
    "llama": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": True}),
    "llama-untied": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": False}),
    "llama3-rope": (LlamaConfig, LlamaForCausalLM, {"rope_parameters": LLAMA3_ROPE}),
    "linear-rope": (LlamaConfig, LlamaForCausalLM, {"rope_parameters": LINEAR_ROPE}),
    "yarn-rope": (LlamaConfig, LlamaForCausalLM, {"rope_parameters": YARN_ROPE}),
    "one-head-each": (LlamaConfig, LlamaForCausalLM, {"num_key_value_heads": 4}),
    "wide-head": (LlamaConfig, LlamaForCausalLM, {"head_dim": 80}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {}),
}


def save_tiny(kind: str, folder: Path) -> PreTrainedModel:
    """Write a model of a kind with a tokenizer of bytes; the model itself, in float32."""
    torch.manual_seed(0)
    config_class, model_class, changes = KINDS[kind]
    model = model_class(config_class(**{**SIZES, **changes}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("bias", "norm.weight", "layernorm.weight")):
                # Their initial values of 0 and 1 would hide what is done with them.
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.eval().save_pretrained(folder)
    bytes_tokenizer().save(str(folder / "tokenizer.json"))
    return model


def save_adapter(folder, scale=1.0):
    """A LoRA of the query, gate and down projections as PEFT writes it; its tensors."""
    folder.mkdir()
    torch.manual_seed(1)
    tensors = {}
    shapes = {"self_attn.q_proj": (64, 64), "mlp.gate_proj": (96, 64), "mlp.down_proj": (64, 96)}
    for layer in range(2):
        for module, (outputs, inputs) in shapes.items():
            at = f"base_model.model.model.layers.{layer}.{module}"
            tensors[f"{at}.lora_A.weight"] = torch.randn(4, inputs) * 0.3
            tensors[f"{at}.lora_B.weight"] = torch.randn(outputs, 4) * 0.3 * scale
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    return tensors
