"""Models of Hugging Face's folders: the same logits, the same files again."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from drakkar.v1alpha1.recipes import AdapterConfig
from drakkar_workers.errors import ConfigError
from drakkar_workers.train.models.adapters import add_adapters, delta, save_adapters
from drakkar_workers.train.models.pretrained import load_decoder, read_shape, save_like
from support.tiny_models import KINDS, save_tiny

LENGTH = 200


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers(kind, tmp_path):
    theirs = save_tiny(kind, tmp_path)
    ours = load_decoder(tmp_path, read_shape(tmp_path, LENGTH))
    ids = torch.randint(0, 256, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = theirs(ids).logits, ours(ids)
    assert (found - expected).abs().max() <= 2e-4 * expected.abs().max()
    assert torch.equal(found.argmax(-1), expected.argmax(-1))


@pytest.mark.parametrize("kind", ["llama", "llama-untied", "qwen2", "qwen3"])
def test_transformers_loads_what_is_saved(kind, tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    save_tiny(kind, source)
    ours = load_decoder(source, read_shape(source, LENGTH))
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.mul_(1.01)
    save_like(source, out, {name: p.detach() for name, p in ours.named_parameters()})
    assert (
        load_file(out / "model.safetensors").keys()
        == load_file(source / "model.safetensors").keys()
    )
    theirs = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    ids = torch.arange(100)[None]
    with torch.no_grad():
        assert torch.allclose(ours(ids), theirs(ids).logits, rtol=1e-3, atol=1e-3)


def test_adapters_change_nothing_at_first_and_merge_exactly(tmp_path):
    save_tiny("qwen2", tmp_path)
    shape, config = (
        read_shape(tmp_path, LENGTH),
        AdapterConfig(rank=4, targets=("q_proj", "up_proj")),
    )
    plain, adapted = load_decoder(tmp_path, shape), load_decoder(tmp_path, shape)
    add_adapters(adapted, config)
    ids = torch.arange(50)[None]
    assert torch.equal(plain(ids), adapted(ids))
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 2 * 2, "two layers, two matrices each, an A and a B"
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        for name, weight in plain.named_parameters():
            added = delta(trained, name, config)
            assert (added is not None) == name.endswith(("q_proj.weight", "up_proj.weight"))
            if added is not None:
                weight.add_(added)
        assert torch.allclose(plain(ids), adapted(ids), atol=1e-3)


def test_adapters_are_written_as_peft_writes_them(tmp_path):
    config = AdapterConfig(rank=4, alpha=8, targets=("q_proj",))
    place = "model.layers.0.self_attn.q_proj"
    tensors = {
        f"{place}.lora_A.weight": torch.ones(4, 8),
        f"{place}.lora_B.weight": torch.ones(8, 4),
    }
    save_adapters(tmp_path, tensors, config, "/models/base")
    assert load_file(tmp_path / "adapter_model.safetensors").keys() == {
        f"base_model.model.{place}.lora_A.weight",
        f"base_model.model.{place}.lora_B.weight",
    }
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["peft_type"]) == (4, 8, "LORA")


def test_too_long_sequences_and_missing_models_are_named(tmp_path):
    save_tiny("llama", tmp_path)
    with pytest.raises(ConfigError, match=r"sequenceLength \(1000\) exceeds the 512 positions"):
        read_shape(tmp_path, 1000)
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        read_shape(tmp_path / "none", 100)
