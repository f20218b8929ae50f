"""From logits to tokens: penalties, bias and grammar, temperature, top-k, top-p, min-p, draw.

Every draw is a function of the request's seed and the token's number alone, so a seed gives the
same text in any batch, after a preemption, and with speculation. R rows, V vocabulary.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drakkar_workers.serve.engine.request import Logprob, Sampling

LIKELY = 256
"""Top-p mostly ends among this many tokens; only if not, all are sorted."""
_MASK64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Row:
    """What one row of logits is sampled with."""

    sampling: Sampling
    number: int
    """Of the token among the output, from 0."""
    prompt: Sequence[int] = ()
    output: Sequence[int] = ()
    """Read only by penalties."""
    mask: NDArray[np.bool_] | None = None
    """Tokens that the grammar allows, shape (V,)."""
    forbidden: tuple[int, ...] = ()
    """Tokens that may not come yet."""


@torch.inference_mode()
def sample(logits: Tensor, rows: Sequence[Row]) -> tuple[list[int], list[Logprob | None]]:
    """A token per row of logits (R, V) float32, which are changed in place."""
    wanted = [i for i, row in enumerate(rows) if row.sampling.logprobs is not None]
    # Log-probabilities are the model's own, before anything is done to them.
    natural = torch.log_softmax(logits[wanted], dim=-1) if wanted else None
    for i, row in enumerate(rows):
        _constrain(logits[i], row)
    drawn = [i for i, row in enumerate(rows) if row.sampling.temperature > 0]
    tokens = logits.argmax(dim=-1)
    if drawn:
        tokens[drawn] = _draw(logits[drawn], [rows[i] for i in drawn])
    out: list[int] = tokens.tolist()
    found: list[Logprob | None] = [None] * len(rows)
    if natural is not None:
        for i, row in zip(wanted, natural, strict=True):
            found[i] = _logprob(row, out[i], rows[i].sampling.logprobs or 0)
    return out, found


@torch.inference_mode()
def score(logits: Tensor, tokens: Sequence[int], count: int) -> list[Logprob]:
    """Log-probabilities of given tokens, one per row of logits (R, V)."""
    natural = torch.log_softmax(logits, dim=-1)
    return [_logprob(row, token, count) for row, token in zip(natural, tokens, strict=True)]


def uniform(seed: int, number: int) -> float:
    """Draw ``number`` of a seed, in [0, 1): SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    z = (seed + (number + 1) * 0x9E3779B97F4A7C15) & _MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK64
    return ((z ^ (z >> 31)) >> 11) / (1 << 53)


def _constrain(logits: Tensor, row: Row) -> None:
    sampling = row.sampling
    if sampling.penalised:
        _penalise(logits, row)
    for token, bias in sampling.logit_bias.items():
        logits[token] += bias
    if row.forbidden:
        logits[list(row.forbidden)] = -torch.inf
    if row.mask is not None:
        logits.masked_fill_(torch.from_numpy(~row.mask).to(logits.device), -torch.inf)


def _penalise(logits: Tensor, row: Row) -> None:
    sampling = row.sampling
    if sampling.repetition_penalty != 1.0:
        seen = torch.tensor(sorted({*row.prompt, *row.output}), device=logits.device)
        old = logits[seen]
        by = sampling.repetition_penalty
        logits[seen] = torch.where(old > 0, old / by, old * by)
    counts = Counter(row.output)
    if counts:
        ids = torch.tensor(list(counts), device=logits.device)
        times = torch.tensor(list(counts.values()), dtype=torch.float32, device=logits.device)
        logits[ids] -= sampling.frequency_penalty * times + sampling.presence_penalty


def _draw(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """One token per row by inverting the distribution function at the row's draw.

    Rows are grouped by what they need, and shapes do not depend on who else is there: neither do
    the sums, to the last bit.
    """
    settings = [row.sampling for row in rows]
    draws = [uniform(s.seed, row.number) for s, row in zip(settings, rows, strict=True)]
    logits = logits / _column(logits, [max(s.temperature, 1e-5) for s in settings])
    plain = [i for i, s in enumerate(settings) if s.top_k == 0 and s.top_p >= 1 and s.min_p == 0]
    cut = sorted(set(range(len(rows))) - set(plain))
    tokens = torch.empty(len(rows), dtype=torch.long, device=logits.device)
    if plain:
        chosen = torch.softmax(logits[plain], dim=-1)
        tokens[plain] = _invert(chosen, _column(logits, [draws[i] for i in plain]))
    if not cut:
        return tokens
    count = min(LIKELY, logits.shape[1])
    kept, ids = logits[cut].topk(count, dim=-1)
    total = torch.logsumexp(logits[cut], dim=-1, keepdim=True)
    mass = (kept - total).exp().sum(dim=-1).tolist()
    tail = (kept[:, -1] - kept[:, 0]).exp().tolist()
    few: list[int] = []
    many: list[int] = []
    for at, i in enumerate(cut):
        s = settings[i]
        limit = s.top_k or logits.shape[1]
        # What lies beyond the likeliest ones matters only to rows that might reach it.
        enough = limit <= count or mass[at] >= s.top_p or tail[at] < s.min_p
        (few if enough and (s.top_k == 0 or limit <= count) else many).append(at)
    for group, whole in ((few, False), (many, True)):
        if not group:
            continue
        rows_of = [cut[at] for at in group]
        values, names = kept[group], ids[group]
        if whole:
            values, names = logits[rows_of].sort(dim=-1, descending=True, stable=True)
        shares = _cut(values, total[group], [settings[i] for i in rows_of])
        place = _invert(shares, _column(logits, [draws[i] for i in rows_of]))
        tokens[rows_of] = names.gather(1, place[:, None]).squeeze(1)
    return tokens


def _cut(values: Tensor, total: Tensor, settings: Sequence[Sampling]) -> Tensor:
    """Shares of the sorted values (R, n) once top-k, top-p and min-p have taken theirs away."""
    n = values.shape[1]
    top_k = _column(values, [float(s.top_k or n) for s in settings])
    values = values.masked_fill(torch.arange(n, device=values.device) >= top_k, -torch.inf)
    limited = _column(values, [float(s.top_k > 0) for s in settings]) > 0
    # Top-p is a share of what top-k left.
    total = torch.where(limited, torch.logsumexp(values, dim=-1, keepdim=True), total)
    shares = (values - total).exp()
    top_p = _column(values, [s.top_p for s in settings])
    drop = (shares.cumsum(dim=-1) - shares >= top_p) & (top_p < 1)
    drop |= shares < _column(values, [s.min_p for s in settings]) * shares[:, :1]
    drop[:, 0] = False
    return shares.masked_fill(drop, 0.0)


def _column(like: Tensor, values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device)[:, None]


def _invert(shares: Tensor, draws: Tensor) -> Tensor:
    """Where the running sum of each row passes its draw; never at a share of 0."""
    sums = shares.double().cumsum(dim=-1)
    index = torch.searchsorted(sums, draws.double() * sums[:, -1:], right=True).squeeze(1)
    # A draw just below 1 can round up to the whole: then the last token with a share.
    last = torch.searchsorted(sums, sums[:, -1:].contiguous()).squeeze(1)
    return torch.minimum(index, last)


def _logprob(row: Tensor, token: int, count: int) -> Logprob:
    if count == 0:
        return Logprob(float(row[token]), [])
    values, ids = row.topk(min(count, row.shape[0]))
    return Logprob(float(row[token]), list(zip(ids.tolist(), values.tolist(), strict=True)))
