"""From a folder and some settings to an engine that can run."""

import logging
from pathlib import Path
from typing import Literal

import msgspec
import torch

from drakkar_workers.errors import ConfigError
from drakkar_workers.hf.config import ModelConfig, read_config
from drakkar_workers.serve.engine.blocks import BlockManager
from drakkar_workers.serve.engine.engine import Engine
from drakkar_workers.serve.engine.grammar import Grammars
from drakkar_workers.serve.engine.scheduler import Limits, Scheduler
from drakkar_workers.serve.model.backend import BLOCK, Backend, Quantization
from drakkar_workers.serve.model.decoder import load
from drakkar_workers.serve.model.native.backend import NativeBackend
from drakkar_workers.serve.model.native.build import NoKernelsError
from drakkar_workers.serve.model.runner import Runner
from drakkar_workers.serve.model.torch_backend import TorchBackend

logger = logging.getLogger(__name__)


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator of the engine can choose."""

    model: str
    """Folder of config.json, safetensors and tokenizer.json."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    quantization: Quantization = "none"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    backend: Literal["auto", "native", "torch"] = "auto"
    threads: int = 0
    """0: as many as the process may use cores."""
    max_length: int = 0
    """Tokens of prompt and output; 0: the model's own limit, as far as the cache reaches."""
    cache_gib: float = 1.0
    max_batch_tokens: int = 512
    max_sequences: int = 64
    max_waiting: int = 1024
    prefix_caching: bool = True
    speculative_tokens: int = 0
    packed: str | None = None
    """Folder by which the engines of a machine share packed weights; None: each has its own."""


def build(settings: EngineSettings) -> Engine:
    """Load everything. Raises ConfigError if the model can't be served with these settings."""
    folder = Path(settings.model)
    config = read_config(folder)
    threads = settings.threads or cores()
    torch.set_num_threads(threads)
    backend = _backend(settings, config, threads)
    blocks = _blocks(settings, config, backend.dtype)
    capacity = blocks * BLOCK
    max_length = min(settings.max_length or config.max_length, config.max_length)
    if settings.max_length > config.max_length:
        raise ConfigError(f"max_length {settings.max_length}: the model has {config.max_length}")
    if settings.max_length > capacity:
        raise ConfigError(
            f"max_length {settings.max_length}: a cache of {settings.cache_gib} GiB holds "
            f"{capacity} tokens; give it more"
        )
    max_length = min(max_length, capacity)
    decoder = load(
        folder, config, backend,
        blocks=blocks, max_length=max_length, quantization=settings.quantization,
        packed=Path(settings.packed) if settings.packed and _is_packed(backend) else None,
    )  # fmt: skip
    limits = Limits(settings.max_batch_tokens, settings.max_sequences, settings.max_waiting)
    manager = BlockManager(blocks, BLOCK, caching=settings.prefix_caching)
    runner = Runner(decoder, max_sequences=settings.max_sequences, max_length=max_length)
    try:
        tokenizer = (folder / "tokenizer.json").read_text()
    except OSError as error:
        raise ConfigError(f"{folder}: {error}") from None
    grammars = Grammars(tokenizer, config.vocab, config.eos_ids)
    return Engine(
        Scheduler(limits, manager), runner, grammars,
        max_length=max_length, speculative_tokens=settings.speculative_tokens,
    )  # fmt: skip


def cores() -> int:
    """Cores that this process may use."""
    import os

    return len(os.sched_getaffinity(0))


def _backend(settings: EngineSettings, config: ModelConfig, threads: int) -> Backend:
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        dtype = torch.float32 if settings.dtype == "float32" else torch.bfloat16
        return TorchBackend(dtype, torch.device("cuda"))
    if settings.backend != "torch":
        try:
            native = NativeBackend(torch.bfloat16, threads)
            native.require_heads(config.head_width)
        except NoKernelsError as error:
            if settings.backend == "native":
                raise ConfigError(f"backend native: {error}") from None
            logger.warning("no compiled kernels, torch serves instead: %s", error)
        else:
            # Without the instructions bf16 is widened on the way: half the memory, more work.
            plain = settings.dtype == "auto" and not native.fast_bf16
            if settings.dtype == "float32" or (plain and settings.quantization == "none"):
                return NativeBackend(torch.float32, threads)
            return native
    dtype = torch.bfloat16 if settings.dtype == "bfloat16" else torch.float32
    return TorchBackend(dtype, torch.device("cpu"))


def _blocks(settings: EngineSettings, config: ModelConfig, dtype: torch.dtype) -> int:
    width = 2 * config.layers * config.kv_heads * config.head_width
    per_block = width * BLOCK * torch.finfo(dtype).bits // 8
    count = int(settings.cache_gib * (1 << 30)) // per_block
    if count < 1:
        raise ConfigError(f"cache_gib {settings.cache_gib}: one block takes {per_block} bytes")
    return count


def _is_packed(backend: Backend) -> bool:
    """Whether packing changes anything; what is mapped as it is needs no second file."""
    return isinstance(backend, NativeBackend)
