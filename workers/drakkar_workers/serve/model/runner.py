"""Runs a step's pieces: their tokens as arrays, the forward pass, the rows that matter."""

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from drakkar_workers.serve.engine.request import Logprob
from drakkar_workers.serve.engine.sampling import score
from drakkar_workers.serve.engine.scheduler import Piece
from drakkar_workers.serve.engine.sequence import Sequence
from drakkar_workers.serve.model.backend import BLOCK, Batch
from drakkar_workers.serve.model.decoder import Decoder

SCORED_ROWS = 64
"""Positions of a prompt whose logits are held at once."""


@dataclass(slots=True)
class Result:
    """What a step computed."""

    logits: Tensor | None
    """Shape (rows, vocab), float32: 1 + drafts rows for each piece that samples, in order."""
    embeddings: dict[str, list[float]]
    """Of the requests whose last piece this was: unit length."""
    scores: dict[str, list[Logprob]]
    """Of prompt tokens: each the one after a position that this step has computed."""


class Runner:
    """Keeps each sequence's row of the block table, so that a step writes only new blocks."""

    def __init__(self, decoder: Decoder, *, max_sequences: int, max_length: int) -> None:
        self.decoder = decoder
        width = -(-max_length // BLOCK)
        self._table = np.zeros((max_sequences, width), np.int32)
        self._free = list(range(max_sequences))
        self._rows: dict[str, _Row] = {}
        self._sums: dict[str, Tensor] = {}

    def run(self, pieces: SequenceOf[Piece]) -> Result:
        """Compute all pieces; their sequences hold the blocks already."""
        batch = self._batch(pieces)
        x = self.decoder.forward(batch)
        wanted: list[int] = []
        embeddings = {}
        scores = {}
        for piece, (_row, first, tokens, _position) in zip(
            pieces, batch.pieces.tolist(), strict=True
        ):
            request = piece.sequence.request
            if request.embed:
                total = self._sum(piece, self.decoder.final_norm(x[first : first + tokens]))
                if piece.samples:
                    embeddings[request.id] = _unit(total).tolist()
                    del self._sums[request.id]
                continue
            if request.prompt_logprobs is not None:
                scores[request.id] = self._score(piece, x[first : first + tokens])
            if piece.samples:
                wanted.extend(range(first + piece.count - 1, first + tokens))
        logits = None
        if wanted:
            rows = x if len(wanted) == len(x) else x[torch.tensor(wanted, device=x.device)]
            logits = self.decoder.logits(rows)
        return Result(logits, embeddings, scores)

    def forget(self, sequence: Sequence) -> None:
        """A sequence has given up its blocks."""
        row = self._rows.pop(sequence.request.id, None)
        if row is not None:
            self._free.append(row.index)
        self._sums.pop(sequence.request.id, None)

    def _batch(self, pieces: SequenceOf[Piece]) -> Batch:
        ids: list[int] = []
        positions = []
        slots = []
        spans = []
        adapters: list[tuple[str, slice]] = []
        first = 0
        for piece in pieces:
            sequence, tokens = piece.sequence, piece.tokens
            row = self._row(sequence)
            if tokens == 1:
                ids.append(sequence.tokens[piece.start])
            else:
                ids.extend(sequence.tokens[piece.start : piece.start + piece.count])
                ids.extend(sequence.drafts)
            at = np.arange(piece.start, piece.start + tokens, dtype=np.int32)
            positions.append(at)
            slots.append(self._table[row, at // BLOCK] * BLOCK + at % BLOCK)
            spans.append((row, first, tokens, piece.start))
            if sequence.request.adapter is not None:
                adapters.append((sequence.request.adapter, slice(first, first + tokens)))
            first += tokens
        return Batch(
            ids=np.array(ids, np.int64),
            positions=np.concatenate(positions),
            slots=np.concatenate(slots),
            table=self._table,
            pieces=np.array(spans, np.int32),
            adapters=adapters,
        )

    def _row(self, sequence: Sequence) -> int:
        row = self._rows.get(sequence.request.id)
        if row is None:
            row = self._rows[sequence.request.id] = _Row(self._free.pop())
        missing = sequence.blocks[row.filled :]
        if missing:
            self._table[row.index, row.filled : row.filled + len(missing)] = missing
            row.filled += len(missing)
        return row.index

    def _score(self, piece: Piece, x: Tensor) -> list[Logprob]:
        request, found = piece.sequence.request, []
        following = request.prompt[piece.start + 1 : piece.start + piece.count + 1]
        for at in range(0, len(following), SCORED_ROWS):
            tokens = following[at : at + SCORED_ROWS]
            logits = self.decoder.logits(x[at : at + len(tokens)])
            found += score(logits, tokens, request.prompt_logprobs or 0)
        return found

    def _sum(self, piece: Piece, hidden: Tensor) -> Tensor:
        total = hidden.float().sum(dim=0)
        if piece.start:
            total += self._sums[piece.sequence.request.id]
        self._sums[piece.sequence.request.id] = total
        return total


@dataclass(slots=True)
class _Row:
    index: int
    filled: int = 0


def _unit(vector: Tensor) -> Tensor:
    unit: Tensor = vector / vector.norm().clamp(min=1e-12)
    return unit
