"""From a recipe's settings to its task."""

from collections.abc import Callable, Mapping
from typing import Any

from drakkar.v1alpha1.recipes import (
    DpoConfig,
    LoraConfig,
    PretrainConfig,
    SftConfig,
    TrainingConfig,
)
from drakkar_workers.data.corpus import default_cache, open_corpus
from drakkar_workers.train.recipes.dpo import Dpo
from drakkar_workers.train.recipes.finetune import Finetune
from drakkar_workers.train.recipes.pretrain import Pretrain
from drakkar_workers.train.recipes.task import Task

Environ = Mapping[str, str]


def open_task(config: TrainingConfig, environ: Environ) -> Task:
    """Read what a recipe needs from disk. Raises ConfigError."""
    return _OPEN[type(config)](config, environ)


def _pretrain(config: PretrainConfig, environ: Environ) -> Task:
    corpus = open_corpus(config.data, config.sequence_length, default_cache(environ))
    return Pretrain(config, corpus)


def _finetune(config: SftConfig, _environ: Environ) -> Task:
    return Finetune(config)


def _dpo(config: DpoConfig, _environ: Environ) -> Task:
    return Dpo(config)


_OPEN: dict[type[TrainingConfig], Callable[[Any, Environ], Task]] = {
    DpoConfig: _dpo,
    LoraConfig: _finetune,
    PretrainConfig: _pretrain,
    SftConfig: _finetune,
}
