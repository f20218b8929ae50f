"""Text out of a model, one token at a time, with the whole window computed for each."""

import torch
from tokenizers import Tokenizer
from torch import nn

TEMPERATURE = 0.8


@torch.inference_mode()
def sample(
    model: nn.Module,
    tokenizer: Tokenizer,
    *,
    prompt: str,
    tokens: int,
    seed: int,
    window: int,
    precision: torch.autocast,
) -> str:
    """The prompt and up to ``tokens`` more; ends early at the end-of-text token."""
    device = next(model.parameters()).device
    vocab = tokenizer.get_vocab_size()
    end = vocab - 1
    ids = tokenizer.encode(prompt).ids or [end]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(tokens):
        with precision:
            logits_V = model(torch.tensor([ids[-window:]], device=device))[0, -1, :vocab]
        weights_V = (logits_V.float().cpu() / TEMPERATURE).softmax(-1)
        choice = int(torch.multinomial(weights_V, 1, generator=generator))
        if choice == end:
            break
        ids.append(choice)
    text: str = tokenizer.decode(ids)
    return text
