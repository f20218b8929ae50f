"""``pretrain``: windows of a text, the loss of each next token."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from drakkar.v1alpha1.recipes import PretrainConfig
from drakkar_workers.data import tokenizer as tokenizers
from drakkar_workers.data.corpus import Corpus
from drakkar_workers.data.sampler import slice_of_rank, windows_of_step
from drakkar_workers.train import batches
from drakkar_workers.train.checkpoint.export import export
from drakkar_workers.train.models.decoder import IGNORE, Decoder, Shape
from drakkar_workers.train.recipes.task import Batch, Share, Task
from drakkar_workers.train.sample import sample


class Pretrain(Task):
    """A decoder learns a text from random weights."""

    def __init__(self, config: PretrainConfig, corpus: Corpus) -> None:
        self._config = config
        self._corpus = corpus
        self.shape = Shape.of(
            config.model, vocab_size=corpus.vocab_size, max_length=config.sequence_length
        )
        self.digest = corpus.digest
        self.tokens_per_step = config.batch_size * config.sequence_length
        self.baseline = corpus.unigram_loss
        if config.model.experts is not None:
            self.balance_rate = config.model.experts.balance_rate

    def build(self) -> nn.Module:
        """Random weights, by the seed that was set."""
        return Decoder(self.shape)

    def weight(self, step: int) -> float:
        """Every window is full, so each step has the same number of targets."""
        return self.tokens_per_step

    def batch(self, step: int, share: Share, micro: int, micros: int) -> Batch:
        """Ids and targets, each of shape (windows, sequence)."""
        starts = windows_of_step(
            step=step,
            batch=self._config.batch_size,
            tokens=len(self._corpus.train),
            sequence=self._config.sequence_length,
            seed=self._config.seed,
        )
        mine = slice_of_rank(starts, rank=share.index, world=share.of, micro=micro, micros=micros)
        return self._windows(self._corpus.train, mine, share.device)

    def held_out(self, share: Share, micros: int) -> Iterator[tuple[Batch, float]]:
        """The same windows at each evaluation; a rank with fewer gets ones that count nothing."""
        config = self._config
        starts = batches.held_out_starts(
            len(self._corpus.held_out),
            config.sequence_length,
            config.eval_batches * config.batch_size,
        )
        mine = starts[share.index :: share.of]
        size = config.batch_size // (share.of * micros)
        for at in range(0, -(-len(starts) // share.of), size):
            chosen = mine[at : at + size]
            ids, targets = self._windows(
                self._corpus.held_out,
                chosen if len(chosen) else np.zeros(1, np.int64),
                share.device,
            )
            if not len(chosen):
                targets = torch.full_like(targets, IGNORE)
            yield (ids, targets), float(len(chosen) * config.sequence_length)

    def export(self, folder: Path, tensors: dict[str, Tensor]) -> None:
        """The files by which others know a Llama."""
        export(
            folder,
            tensors,
            shape=self.shape,
            tokenizer=self._corpus.tokenizer_path,
            vocab_size=self._corpus.vocab_size,
        )

    def about(self) -> str:
        """Source and size of the text."""
        corpus = self._corpus
        return (
            f"data: {self._config.data.source}, {len(corpus.train):,} tokens of "
            f"{corpus.vocab_size}, {len(corpus.held_out):,} held out, "
            f"unigram loss {corpus.unigram_loss:.3f} nats/token"
        )

    def sample(self, model: nn.Module, precision: torch.autocast, multiple: int) -> str | None:
        """What the model writes after the recipe's prompt."""
        config = self._config
        if not config.sample_tokens:
            return None
        return sample(
            model,
            tokenizers.load(self._corpus.tokenizer_path),
            prompt=config.sample_prompt,
            tokens=config.sample_tokens,
            seed=config.seed,
            window=config.sequence_length,
            precision=precision,
            multiple=multiple,
        )

    def _windows(
        self, tokens: batches.Tokens, starts: batches.Starts, device: torch.device
    ) -> Batch:
        return batches.gather(tokens, starts, self._config.sequence_length, device)
