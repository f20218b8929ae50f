"""What engines say about themselves in Prometheus' format, under the names of vLLM and SGLang."""

import re
from dataclasses import dataclass

RUNNING = ("vllm:num_requests_running", "sglang:num_running_reqs")
WAITING = ("vllm:num_requests_waiting", "sglang:num_queue_reqs")
USAGE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage")
ADAPTERS = "vllm:lora_requests_info"
CACHE = "vllm:cache_config_info"
WANTED = (*RUNNING, *WAITING, *USAGE, ADAPTERS, CACHE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Figures:
    """What an engine says about itself; None for what it does not say."""

    running: int | None = None
    waiting: int | None = None
    kv: float | None = None
    adapters: frozenset[str] = frozenset()
    cache_tokens: int | None = None
    """That its cache has room for."""


def parse(text: str) -> Figures:
    """Figures of a page in Prometheus' format; what can't be read is left out.

    Engines with several ranks of data parallelism tell each: counts are summed, of shares the mean
    is taken.
    """
    found: dict[str, list[float]] = {}
    adapters: dict[str, float] = {}
    cache: int | None = None
    for line in text.splitlines():
        if not line.startswith(WANTED):
            continue
        name, labels, value = _sample(line)
        if name == ADAPTERS and value is not None:
            both = f"{labels.get('running_lora_adapters', '')},{labels.get('waiting_lora_adapters', '')}"
            # vLLM leaves the samples of earlier sets behind; its value is the time of the last use.
            for adapter in filter(None, both.split(",")):
                adapters[adapter] = max(value, adapters.get(adapter, value))
        elif name == CACHE:
            sizes = [labels.get(key, "") for key in ("num_gpu_blocks", "block_size")]
            if all(size.isascii() and size.isdigit() for size in sizes):
                cache = (cache or 0) + int(sizes[0][:12]) * int(sizes[1][:12])
        elif value is not None:
            found.setdefault(name, []).append(value)
    last = max(adapters.values(), default=0.0)
    usage = _first(found, USAGE)
    return Figures(
        running=_count(_first(found, RUNNING)),
        waiting=_count(_first(found, WAITING)),
        kv=None if usage is None else min(1.0, max(0.0, sum(usage) / len(usage))),
        adapters=frozenset(name for name, value in adapters.items() if value == last),
        cache_tokens=cache,
    )


def _sample(line: str) -> tuple[str, dict[str, str], float | None]:
    name, brace, rest = line.partition("{")
    if brace:
        inner, _, tail = rest.rpartition("}")
        labels = dict(_LABEL.findall(inner))
    else:
        name, _, tail = line.partition(" ")
        labels = {}
    try:
        value = float(tail.split()[0])
    except (IndexError, ValueError):
        return name, labels, None
    return name, labels, value if value == value and abs(value) < 1e15 else None


def _first(found: dict[str, list[float]], names: tuple[str, ...]) -> list[float] | None:
    return next((found[name] for name in names if name in found), None)


def _count(values: list[float] | None) -> int | None:
    return None if values is None else max(0, int(sum(values)))
