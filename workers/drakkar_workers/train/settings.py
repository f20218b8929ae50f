"""What one rank must know before it starts: from the agent's environment or from a file."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from drakkar.protocol import GANG_ENV, GangConfig
from drakkar.v1alpha1.recipes import TrainingConfig, parse_recipe
from drakkar_workers.channel import EPOCH_ENV
from drakkar_workers.errors import ConfigError
from drakkar_workers.train.checkpoint.objects import Place, place

COLLECTIVE_MARGIN = 1.5
"""Collectives wait longer than the agents do: they know which rank did not arrive, a collective that
times out would only say that some other did not."""


@dataclass(frozen=True, slots=True)
class Rank:
    """This process among its peers, in torchrun's words."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1


@dataclass(frozen=True, slots=True)
class Settings:
    """All that a rank is told. Paths are absolute or relative to the working folder."""

    recipe: TrainingConfig
    rank: Rank
    checkpoint_dir: Place | None
    checkpoint_root: Place | None
    checkpoint_every: int
    checkpoint_keep: int
    memory_every: int
    """Steps between two checkpoints in memory; 0 for none."""
    restore_from: Place | None
    timeout_seconds: float
    """A collective that takes longer has lost a peer."""
    epoch: int


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Command line of ``python -m drakkar_workers.train``; SystemExit if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m drakkar_workers.train",
        description="Train one rank. Without --config the agent's environment says what.",
    )
    parser.add_argument(
        "--config",
        type=Path,
        help="YAML: the recipe's settings as under spec.recipe.config, or a whole TrainingJob",
    )
    parser.add_argument("--out", help="folder, or URL in an object store, for checkpoints")
    parser.add_argument("--checkpoint-every", type=int, default=50, metavar="STEPS")
    parser.add_argument("--keep", type=int, default=3, help="newest checkpoints that are kept")
    return parser.parse_args(argv)


def read(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    """The settings of this rank. Raises ConfigError that names what is wrong."""
    rank = _rank(environ)
    if arguments.config is not None:
        name, config = _recipe_file(arguments.config)
        gang = GangConfig(
            job=arguments.config.stem,
            namespace="",
            uid="",
            replicas=rank.world_size // rank.local_world_size,
            processes_per_replica=rank.local_world_size,
            coordinator="",
            recipe=name,
            recipe_config=config,
            checkpoint_dir=arguments.out,
            checkpoint_root=arguments.out,
            checkpoint_every=arguments.checkpoint_every,
            checkpoint_keep=arguments.keep,
        )
    else:
        gang = _gang(environ)
    try:
        recipe = parse_recipe(gang.recipe or "pretrain", gang.recipe_config, rank.world_size)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    root = _place(gang.checkpoint_root)
    return Settings(
        recipe=recipe,
        rank=rank,
        checkpoint_dir=_place(gang.checkpoint_dir),
        checkpoint_root=root,
        checkpoint_every=gang.checkpoint_every,
        checkpoint_keep=gang.checkpoint_keep,
        memory_every=gang.memory_every,
        restore_from=_below(root, gang.restore_from) if gang.restore_from else None,
        timeout_seconds=COLLECTIVE_MARGIN * gang.hang_timeout_seconds,
        epoch=_number(environ, EPOCH_ENV, 0),
    )


def _place(text: str | None) -> Place | None:
    try:
        return place(text) if text else None
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _below(root: Place | None, path: str) -> Place:
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ConfigError(
            f"spec.checkpoint.restoreFrom: {path!r} must be a path below the checkpoint storage"
        )
    return (root or Path()) / path


def _gang(environ: Mapping[str, str]) -> GangConfig:
    if GANG_ENV not in environ:
        raise ConfigError(f"neither --config nor the environment variable {GANG_ENV} is given")
    try:
        return GangConfig.model_validate_json(environ[GANG_ENV])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{GANG_ENV}: {place}: {first['msg']}") from None


def _rank(environ: Mapping[str, str]) -> Rank:
    world_size = _number(environ, "WORLD_SIZE", 1)
    rank = Rank(
        rank=_number(environ, "RANK", 0),
        local_rank=_number(environ, "LOCAL_RANK", 0),
        world_size=world_size,
        local_world_size=_number(environ, "LOCAL_WORLD_SIZE", 1),
    )
    if not rank.rank < world_size:
        raise ConfigError(f"RANK is {rank.rank}, WORLD_SIZE is {world_size}: too few")
    if world_size > 1:
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            if name not in environ:
                raise ConfigError(f"WORLD_SIZE is {world_size}, but {name} is not set")
    return rank


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    value = environ.get(name, str(default))
    if not value.isdigit():
        raise ConfigError(f"{name} is {value!r}, expected a whole number")
    return int(value)


def _recipe_file(path: Path) -> tuple[str, dict[str, Any]]:
    """Recipe name and settings out of a file of settings or a TrainingJob manifest."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return "pretrain", {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds a {type(content).__name__}, expected a mapping")
    if content.get("kind") != "TrainingJob":
        return "pretrain", content
    recipe = (content.get("spec") or {}).get("recipe") or {}
    return recipe.get("name", "pretrain"), recipe.get("config") or {}
