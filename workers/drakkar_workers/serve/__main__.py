"""Serves a model: ``python -m drakkar_workers.serve --model FOLDER``."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from drakkar_workers.errors import ConfigError
from drakkar_workers.serve.engine.build import EngineSettings
from drakkar_workers.serve.server.serve import ServerSettings, run


def main(argv: Sequence[str] | None = None) -> int:
    """Serve as the arguments say; an exit status."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    try:
        return run(parse(argv))
    except (ConfigError, OSError) as error:
        print(f"serve: {error}", file=sys.stderr)
        return 2


def parse(argv: Sequence[str] | None = None) -> ServerSettings:
    """Settings from the command line; exits with a message if they are wrong."""
    parser = argparse.ArgumentParser(prog="python -m drakkar_workers.serve", description=__doc__)
    add = parser.add_argument
    add("--model", required=True, help="folder of config.json, safetensors and tokenizer.json")
    add("--host", default=None, help="address to listen on (default: all)")
    add("--port", type=_at_least(0), default=8000)
    add("--name", action="append", default=[], help="what clients call the model; may be repeated")
    add("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    add("--quantization", choices=("none", "int8", "int4"), default="none", help="of the weights")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--backend", choices=("auto", "native", "torch"), default="auto")
    add("--threads", type=_at_least(0), default=0, help="0: all cores of the process")
    add(
        "--max-length",
        type=_at_least(0),
        default=0,
        help="tokens of prompt and output; 0: the model's",
    )
    add("--packed", type=Path, default=None, help="folder by which the engines of a machine share "
        "the weights as their kernels want them")  # fmt: skip
    add("--cache-gib", type=_positive, default=1.0, help="memory for keys and values")
    add("--max-batch-tokens", type=_at_least(1), default=512, help="tokens of one step")
    add("--max-sequences", type=_at_least(1), default=64, help="sequences of one step")
    add("--max-waiting", type=_at_least(1), default=1024, help="requests that may wait")
    add("--no-prefix-caching", action="store_true")
    add("--speculative-tokens", type=_at_least(0), default=0, help="n-gram guesses per step")
    add("--api-keys", type=Path, default=None, help="JSON file of keys and their limits")
    add("--adapters", type=Path, default=None, help="folder of LoRA adapters")
    add("--files", type=Path, default=None, help="folder of files and batches, shared by replicas")
    add("--batch-concurrency", type=_at_least(1), default=16, help="requests of batches at a time")
    add("--timeout", type=_positive, default=600.0, help="seconds for one request")
    add("--silence", type=_positive, default=30.0, help="seconds until a mute engine is dead")
    add("--drain-delay", type=_at_least(0), default=5)
    add("--drain-timeout", type=_at_least(0), default=300)
    found = parser.parse_args(argv)
    engine = EngineSettings(
        model=found.model,
        dtype=found.dtype,
        quantization=found.quantization,
        device=found.device,
        backend=found.backend,
        threads=found.threads,
        max_length=found.max_length,
        cache_gib=found.cache_gib,
        max_batch_tokens=found.max_batch_tokens,
        max_sequences=found.max_sequences,
        max_waiting=found.max_waiting,
        prefix_caching=not found.no_prefix_caching,
        speculative_tokens=found.speculative_tokens,
        packed=None if found.packed is None else str(found.packed),
    )
    return ServerSettings(
        engine=engine,
        host=found.host,
        port=found.port,
        names=found.name,
        keys=found.api_keys,
        adapters=found.adapters,
        files=found.files,
        batch_concurrency=found.batch_concurrency,
        timeout=found.timeout,
        silence=found.silence,
        drain_delay=found.drain_delay,
        drain_timeout=found.drain_timeout,
    )


class _at_least:  # noqa: N801 (reads as a function, and argparse shows its name)
    def __init__(self, least: int) -> None:
        self._least = least

    def __call__(self, text: str) -> int:
        value = int(text)
        if value < self._least:
            raise argparse.ArgumentTypeError(f"{value} is less than {self._least}")
        return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
