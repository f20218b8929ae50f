"""Text out of a model, one token at a time, with the whole window computed for each."""

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F  # noqa: N812

TEMPERATURE = 0.8


@torch.no_grad()
def sample(
    model: nn.Module,
    tokenizer: Tokenizer,
    *,
    prompt: str,
    tokens: int,
    seed: int,
    window: int,
    precision: torch.autocast,
    multiple: int = 1,
) -> str:
    """The prompt and up to ``tokens`` more; ends early at the end-of-text token."""
    device = next(model.parameters()).device
    vocab = tokenizer.get_vocab_size()
    end = vocab - 1
    ids = tokenizer.encode(prompt).ids or [end]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(tokens):
        with precision:
            ids_T = torch.tensor(ids[-window:], device=device)
            # What follows a position does not change it.
            padded_T = F.pad(ids_T, (0, -len(ids_T) % multiple))
            logits_BTV = model(padded_T[None])
        if isinstance(logits_BTV, DTensor):
            logits_BTV = logits_BTV.full_tensor()
        logits_V = logits_BTV[0, len(ids_T) - 1, :vocab]
        weights_V = (logits_V.float().cpu() / TEMPERATURE).softmax(-1)
        choice = int(torch.multinomial(weights_V, 1, generator=generator))
        if choice == end:
            break
        ids.append(choice)
    text: str = tokenizer.decode(ids)
    return text
