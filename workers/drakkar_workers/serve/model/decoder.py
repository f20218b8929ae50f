"""A decoder of the Llama family over a paged cache. T tokens, D hidden, V vocabulary."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from drakkar_workers.hf.config import ModelConfig
from drakkar_workers.hf.rope import rotary_tables
from drakkar_workers.hf.weights import Weights
from drakkar_workers.serve.model.backend import Backend, Batch, Heads, Linear, Quantization
from drakkar_workers.serve.model.lora import Adapter, add_delta
from drakkar_workers.serve.model.packed import Shelf, shelf


@dataclass(slots=True)
class Layer:
    """One layer's weights; query, key and value, gate and up are one product each."""

    input_norm: Tensor
    qkv: Linear
    heads: Heads
    o: Linear
    post_norm: Tensor
    gate_up: Linear
    down: Linear
    rope: bool


class Decoder:
    """Weights, cache and forward pass of one model on one device."""

    def __init__(
        self,
        config: ModelConfig,
        weights: Weights,
        backend: Backend,
        *,
        blocks: int,
        max_length: int,
        shelf: Shelf | None = None,
    ) -> None:
        shelf = shelf or Shelf(backend, "none")
        self.config = config
        self.backend = backend
        self.adapters: dict[str, Adapter] = {}
        prefix = "model." if "model.embed_tokens.weight" in weights else ""
        table = (config.vocab, config.hidden)
        # Rows are looked up where the file is mapped; only the products need another order.
        self._embedding = weights.take(f"{prefix}embed_tokens.weight", table).to(backend.device)
        self._layers = [
            _layer(config, weights, shelf, f"{prefix}layers.{index}.", index)
            for index in range(config.layers)
        ]
        self._norm = _float(weights.take(f"{prefix}norm.weight", (config.hidden,)), backend)
        tied = config.tie_embeddings or "lm_head.weight" not in weights
        head = self._embedding if tied else weights.take("lm_head.weight", table)
        self._head = shelf.get("head", lambda: (head, None))
        turned = rotary_tables(config.rope, config.head_width, max_length)
        self._tables = (turned[0].to(backend.device), turned[1].to(backend.device))
        self._still = (torch.ones_like(self._tables[0]), torch.zeros_like(self._tables[1]))
        self.cache = backend.cache(config.layers, blocks, self._layers[0].heads)

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Tensor:
        """The residual stream behind the last layer, before the final norm: (T, D) float32."""
        backend, epsilon = self.backend, self.config.norm_epsilon
        backend.start(batch)
        ids = torch.from_numpy(batch.ids).to(backend.device)
        x = self._embedding[ids].float()
        for index, layer in enumerate(self._layers):
            cache = self.cache[:, index]
            h = backend.norm(x, layer.input_norm, epsilon)
            qkv = backend.linear(h, layer.qkv)
            self._adapt(batch, index, "qkv", h, qkv)
            tables = self._tables if layer.rope else self._still
            q = backend.rope(qkv, layer.heads, tables, cache)
            mixed = backend.attend(q, layer.heads, cache)
            backend.add_linear(x, mixed, layer.o)
            self._adapt(batch, index, "o", mixed, x)
            h = backend.norm(x, layer.post_norm, epsilon)
            gate_up = backend.linear(h, layer.gate_up)
            self._adapt(batch, index, "gate_up", h, gate_up)
            inner = backend.swiglu(gate_up)
            backend.add_linear(x, inner, layer.down)
            self._adapt(batch, index, "down", inner, x)
        return x

    @torch.inference_mode()
    def final_norm(self, x: Tensor) -> Tensor:
        """What transformers calls the last hidden state: (T, D)."""
        return self.backend.norm(x.contiguous(), self._norm, self.config.norm_epsilon)

    @torch.inference_mode()
    def logits(self, x: Tensor) -> Tensor:
        """(T, D) residuals to (T, V), float32."""
        return self.backend.linear(self.final_norm(x), self._head)

    def _adapt(self, batch: Batch, index: int, place: str, x: Tensor, out: Tensor) -> None:
        for name, rows in batch.adapters:
            add_delta(self.adapters[name], index, place, x[rows], out[rows])


def load(
    folder: Path,
    config: ModelConfig,
    backend: Backend,
    *,
    blocks: int,
    max_length: int,
    quantization: Quantization = "none",
    packed: Path | None = None,
) -> Decoder:
    """Read a model; its packed weights are shared with other engines by the folder ``packed``.

    Raises ConfigError if weights are missing or do not fit the configuration.
    """
    with Weights(folder) as weights, shelf(packed, folder, backend, quantization) as found:
        return Decoder(config, weights, backend, blocks=blocks, max_length=max_length, shelf=found)


def _layer(
    config: ModelConfig,
    weights: Weights,
    shelf: Shelf,
    prefix: str,
    index: int,
) -> Layer:
    backend = shelf.backend
    D, width, inner = config.hidden, config.head_width, config.mlp_hidden
    q_size, kv_size = config.heads * width, config.kv_heads * width

    def together(module: str, sizes: dict[str, int], inputs: int) -> Linear:
        names = {f"{prefix}{module}.{part}": size for part, size in sizes.items()}

        def read() -> tuple[Tensor, Tensor | None]:
            weight = [
                weights.take(f"{name}.weight", (size, inputs)) for name, size in names.items()
            ]
            bias = [weights.maybe(f"{name}.bias", (size,)) for name, size in names.items()]
            found = [part for part in bias if part is not None]
            joined = torch.cat(found) if len(found) == len(bias) else None
            return torch.cat(weight) if len(weight) > 1 else weight[0], joined

        return shelf.get("+".join(names), read)

    def norm(name: str, size: int) -> Tensor:
        return _float(weights.take(f"{prefix}{name}.weight", (size,)), backend)

    heads = Heads(config.heads, config.kv_heads, width, config.norm_epsilon)
    if config.qk_norm:
        heads.q_norm = norm("self_attn.q_norm", width)
        heads.k_norm = norm("self_attn.k_norm", width)
    qkv = {"q_proj": q_size, "k_proj": kv_size, "v_proj": kv_size}
    return Layer(
        input_norm=norm("input_layernorm", D),
        qkv=together("self_attn", qkv, D),
        heads=heads,
        o=together("self_attn", {"o_proj": D}, q_size),
        post_norm=norm("post_attention_layernorm", D),
        gate_up=together("mlp", {"gate_proj": inner, "up_proj": inner}, D),
        down=together("mlp", {"down_proj": D}, inner),
        rope=config.rope_layers[index],
    )


def _float(tensor: Tensor, backend: Backend) -> Tensor:
    return tensor.to(backend.device, torch.float32).contiguous()
