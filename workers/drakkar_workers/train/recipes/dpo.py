"""``dpo`` (Rafailov et al., arXiv 2305.18290): raise preferred answers over refused ones."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from drakkar.v1alpha1.recipes import DpoConfig
from drakkar_workers.data.conversations import Example, digest, read_pairs, read_tokenizer
from drakkar_workers.data.sampler import rows_of_step, slice_of_rank
from drakkar_workers.hf.chat import read_template
from drakkar_workers.train.models.decoder import IGNORE, Decoder
from drakkar_workers.train.models.pretrained import load_decoder, read_shape, save_like
from drakkar_workers.train.recipes.rows import pad
from drakkar_workers.train.recipes.task import Batch, Share, Task

Pair = tuple[Example, Example]


class Dpo(Task):
    """A decoder learns from pairs of answers."""

    def __init__(self, config: DpoConfig) -> None:
        """Read model sizes and pairs. Raises ConfigError."""
        self._config = config
        self._folder = Path(config.model.path)
        self.shape = read_shape(self._folder, config.sequence_length)
        pairs = read_pairs(
            Path(config.data.path),
            read_template(self._folder),
            read_tokenizer(self._folder),
            config.sequence_length,
        )
        held_out = max(1, int(len(pairs) * config.data.held_out))
        self._pairs, self._held_out = pairs[:-held_out], pairs[-held_out:]
        self.digest = digest([example for pair in pairs for example in pair])
        self.tokens_per_step = 2 * config.batch_size * config.sequence_length
        self._reference: Decoder | None = None

    def build(self) -> nn.Module:
        """The model with its weights."""
        return load_decoder(self._folder, self.shape)

    def weight(self, step: int) -> float:
        """Pairs in a step."""
        return float(self._config.batch_size)

    def batch(self, step: int, share: Share, micro: int, micros: int) -> Batch:
        """Ids and targets, preferred answers first: each of shape (2 x pairs, tokens)."""
        config = self._config
        rows = slice_of_rank(
            rows_of_step(
                step=step, batch=config.batch_size, rows=len(self._pairs), seed=config.seed
            ),
            rank=share.index,
            world=share.of,
            micro=micro,
            micros=micros,
        )
        return self._padded([self._pairs[row] for row in rows], share.device)

    def held_out(self, share: Share, micros: int) -> Iterator[tuple[Batch, float]]:
        """The same pairs at each evaluation; a rank with fewer gets empty batches."""
        config = self._config
        chosen = self._held_out[: config.eval_batches * config.batch_size]
        mine = chosen[share.index :: share.of]
        size = config.batch_size // (share.of * micros)
        for at in range(0, -(-len(chosen) // share.of), size):
            part = mine[at : at + size]
            ids, targets = self._padded(part or chosen[:1], share.device)
            if not part:
                ids, targets = ids[:0], targets[:0]
            yield (ids, targets), float(len(part))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum over pairs of -log sigmoid(beta x margin); the margin is in nats."""
        ids, targets = batch
        if not len(ids):
            # All ranks take part where weights are gathered.
            idle: Tensor = model(targets.new_zeros(1, 8)).float().sum() * 0.0
            return idle
        reference = self._as_found(ids.device)
        with torch.no_grad():
            before = log_probabilities(reference(ids), targets)
        gain = log_probabilities(model(ids), targets) - before
        preferred, refused = gain.chunk(2)
        return -F.logsigmoid(self._config.beta * (preferred - refused)).sum()

    def export(self, folder: Path, tensors: dict[str, Tensor]) -> None:
        """The model as it was found, with its weights."""
        weights = {
            name.removeprefix("model."): tensor
            for name, tensor in tensors.items()
            if name.startswith("model.")
        }
        save_like(self._folder, folder, weights)

    def about(self) -> str:
        """Number of pairs."""
        return (
            f"data: {self._config.data.path}, {len(self._pairs):,} pairs, "
            f"{len(self._held_out):,} held out; a loss of 0.693 knows no preference"
        )

    def _as_found(self, device: torch.device) -> Decoder:
        if self._reference is None:
            self._reference = load_decoder(self._folder, self.shape).to(device)
            self._reference.requires_grad_(False)
        return self._reference

    def _padded(self, pairs: Sequence[Pair], device: torch.device) -> tuple[Tensor, Tensor]:
        preferred, refused = [one for one, _ in pairs], [other for _, other in pairs]
        return pad([*preferred, *refused], self._config.sequence_length, 1, device)


def log_probabilities(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Of what is to be said in each row, in nats: shape (B,)."""
    losses_BT = F.cross_entropy(
        logits_BTV.float().transpose(1, 2), targets_BT, reduction="none", ignore_index=IGNORE
    )
    return -losses_BT.sum(1)
