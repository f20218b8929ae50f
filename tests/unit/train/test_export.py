import json

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from drakkar.v1alpha1.recipes import ExpertsConfig, ModelConfig
from drakkar_workers.data import tokenizer as tokenizers
from drakkar_workers.train.checkpoint.export import export
from drakkar_workers.train.models.decoder import Decoder, Shape
from drakkar_workers.train.models.experts import mixtures


def test_transformers_says_the_same_of_experts(tmp_path):
    experts = ExpertsConfig(count=4, active=2, hidden=16, shared=1, dense_layers=1)
    config = ModelConfig(layers=3, hidden=32, heads=4, kv_heads=2, experts=experts)
    torch.manual_seed(0)
    model = Decoder(Shape.of(config, vocab_size=257, max_length=16)).eval()
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            parameter.data.mul_(10)
    for layer in mixtures(model):
        layer.gate.e_score_correction_bias.normal_(std=0.1)
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    del tensors["model.lm_head.weight"]
    tokenizers.bytes_tokenizer().save(str(tmp_path / "t.json"))
    folder = tmp_path / "out"
    folder.mkdir()
    export(folder, tensors, shape=model.shape, tokenizer=tmp_path / "t.json", vocab_size=257)
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.randint(0, 256, (2, 16))
    with torch.no_grad():
        expected, found = theirs(ids).logits, model(ids)
    assert (found - expected).abs().max() <= 2e-4 * expected.abs().max()


def test_a_decoder_comes_back_from_its_files(tmp_path):
    shape = Shape.of(ModelConfig(layers=2, hidden=32, heads=4), vocab_size=257, max_length=16)
    model = Decoder(shape)
    tensors = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    tensors["optimizer.model.norm.weight.exp_avg"] = torch.zeros(32)
    tokenizers.bytes_tokenizer().save(str(tmp_path / "t.json"))
    folder = tmp_path / "out"
    folder.mkdir()
    export(folder, tensors, shape=shape, tokenizer=tmp_path / "t.json", vocab_size=257)

    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["intermediate_size"] == 96 and config["eos_token_id"] == 256
    assert tokenizers.load(folder / "tokenizer.json").encode("hi").ids == [104, 105]
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = list(file.keys())
        fresh = Decoder(shape)
        fresh.load_state_dict({name: file.get_tensor(name) for name in names}, strict=False)
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    ids = torch.arange(16)[None]
    assert torch.equal(fresh(ids), model(ids))
    assert (folder / "model.safetensors").stat().st_mode & 0o444 == 0o444
