"""``sft`` and ``lora``: conversations, the loss of each token that the assistant says."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from drakkar.v1alpha1.recipes import LoraConfig, SftConfig
from drakkar_workers.data.conversations import Example, digest, read_examples, read_tokenizer
from drakkar_workers.data.sampler import rows_of_step, slice_of_rank
from drakkar_workers.errors import ConfigError
from drakkar_workers.hf.chat import read_template
from drakkar_workers.hf.weights import Weights
from drakkar_workers.train.models.adapters import add_adapters, delta, save_adapters
from drakkar_workers.train.models.decoder import IGNORE
from drakkar_workers.train.models.pretrained import load_decoder, read_shape, save_like
from drakkar_workers.train.recipes.rows import pad
from drakkar_workers.train.recipes.task import Batch, Share, Task


class Finetune(Task):
    """A decoder that exists learns what an assistant says."""

    def __init__(self, config: SftConfig) -> None:
        """Read model sizes and conversations. Raises ConfigError."""
        self._config = config
        self._folder = Path(config.model.path)
        self.shape = read_shape(self._folder, config.sequence_length)
        self._check_heads()
        tokenizer = read_tokenizer(self._folder)
        examples, self._left_out = read_examples(
            Path(config.data.path), read_template(self._folder), tokenizer, config.sequence_length
        )
        held_out = max(1, int(len(examples) * config.data.held_out))
        self._examples, self._held_out = examples[:-held_out], examples[-held_out:]
        self._targets = np.array([int(e.learned[1:].sum()) for e in self._examples])
        self.digest = digest(examples)
        self.tokens_per_step = config.batch_size * config.sequence_length

    def build(self) -> nn.Module:
        """The model with its weights; adapters, if the recipe wants them."""
        model = load_decoder(self._folder, self.shape)
        if isinstance(self._config, LoraConfig):
            add_adapters(model, self._config.adapter)
        return model

    def weight(self, step: int) -> float:
        """Tokens that the assistant says in a step, over all ranks."""
        return float(self._targets[self._rows(step)].sum())

    def batch(self, step: int, share: Share, micro: int, micros: int) -> Batch:
        """Ids and targets, each of shape (rows, tokens of the longest)."""
        rows = slice_of_rank(
            self._rows(step), rank=share.index, world=share.of, micro=micro, micros=micros
        )
        return self._padded([self._examples[row] for row in rows], share.device)

    def held_out(self, share: Share, micros: int) -> Iterator[tuple[Batch, float]]:
        """The same conversations at each evaluation."""
        config = self._config
        chosen = self._held_out[: config.eval_batches * config.batch_size]
        mine = chosen[share.index :: share.of]
        size = config.batch_size // (share.of * micros)
        for at in range(0, -(-len(chosen) // share.of), size):
            part = mine[at : at + size]
            ids, targets = self._padded(part or chosen[:1], share.device)
            if not part:
                targets = torch.full_like(targets, IGNORE)
            yield (ids, targets), float(sum(int(e.learned[1:].sum()) for e in part))

    def export(self, folder: Path, tensors: dict[str, Tensor]) -> None:
        """The model as it was found, with its weights; and the adapters by themselves."""
        weights = {
            name.removeprefix("model."): tensor
            for name, tensor in tensors.items()
            if name.startswith("model.")
        }
        config = self._config
        if not isinstance(config, LoraConfig):
            save_like(self._folder, folder, weights)
            return
        save_adapters(folder, weights, config.adapter, config.model.path)
        if config.adapter.merge:
            save_like(self._folder, folder, self._merged(weights, config))

    def about(self) -> str:
        """Number of conversations, and of tokens that are learned."""
        cut = f", {self._left_out} cut off before the assistant speaks" if self._left_out else ""
        return (
            f"data: {self._config.data.path}, {len(self._examples):,} conversations with "
            f"{int(self._targets.sum()):,} tokens to learn, {len(self._held_out):,} held out{cut}"
        )

    def manifest_model(self) -> dict[str, object]:
        """The shape; of adapters also their own."""
        found: dict[str, object] = self.shape.as_dict()
        if isinstance(self._config, LoraConfig):
            adapter = self._config.adapter
            found |= {"lora_rank": adapter.rank, "lora_targets": list(adapter.targets)}
        return found

    def _rows(self, step: int) -> NDArray[np.int64]:
        config = self._config
        return rows_of_step(
            step=step, batch=config.batch_size, rows=len(self._examples), seed=config.seed
        )

    def _padded(self, examples: Sequence[Example], device: torch.device) -> Batch:
        config = self._config
        multiple = config.parallel.tensor * config.parallel.context
        return pad(examples, config.sequence_length, multiple, device)

    def _merged(self, adapters: dict[str, Tensor], config: LoraConfig) -> dict[str, Tensor]:
        merged = {}
        with Weights(self._folder) as weights:
            for name in weights.names():
                value = weights.get(name)
                added = delta(adapters, name, config.adapter)
                if added is not None:
                    value = (value.float() + added).to(value.dtype)
                merged[name] = value
        return merged

    def _check_heads(self) -> None:
        parallel = self._config.parallel
        parts = parallel.tensor * parallel.context
        for name, value in (("attention", self.shape.heads), ("key", self.shape.kv_heads)):
            if value % parts:
                raise ConfigError(
                    f"{self._folder} has {value} {name} heads, which must be a multiple of "
                    f"parallel.tensor x parallel.context ({parts})"
                )
        if self.shape.vocab % parallel.tensor:
            raise ConfigError(
                f"{self._folder} has a vocabulary of {self.shape.vocab}, which must be a multiple "
                f"of parallel.tensor ({parallel.tensor})"
            )
