"""Settings of Drakkar's own trainers: checked by the CLI and the operator, used by the trainer."""

from typing import Literal, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from drakkar.v1alpha1.meta import Model
from drakkar.v1alpha1.trainingjob import TrainingJobSpec


class Settings(Model):
    """Recipe settings refuse unknown fields: a misspelt one would otherwise be ignored in silence."""

    model_config = ConfigDict(**{**Model.model_config, "extra": "forbid"})


class ModelConfig(Settings):
    """A Llama-style decoder."""

    layers: int = Field(default=4, ge=1, le=256)
    hidden: int = Field(default=256, ge=16, le=65_536, description="Width of the residual stream.")
    heads: int = Field(default=4, ge=1, le=512)
    kv_heads: int | None = Field(
        default=None, ge=1, le=512, description="Default: as many as heads."
    )
    mlp_hidden: int | None = Field(default=None, ge=16, description="Default: 8/3 of hidden.")
    rope_theta: float = Field(default=10_000.0, gt=0)
    tie_embeddings: bool = True

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        if (self.hidden // self.heads) % 2:
            raise ValueError(
                f"hidden / heads is {self.hidden // self.heads}; rotary embeddings need an even number"
            )
        if self.kv_heads and self.heads % self.kv_heads:
            raise ValueError(
                f"heads ({self.heads}) must be a multiple of kvHeads ({self.kv_heads})"
            )
        return self


class DataConfig(Settings):
    """The text that is learned."""

    source: str = Field(
        default="bible-kjv",
        min_length=1,
        max_length=512,
        description="Name of a data set in the worker image, or an absolute path of a UTF-8 text file.",
    )
    tokenizer: Literal["bytes", "bpe"] = "bytes"
    vocab_size: int = Field(default=1024, ge=257, le=262_144, description="Of the trained BPE.")
    held_out: float = Field(
        default=0.05, gt=0, lt=0.5, description="Share of the text for evaluation."
    )


class PretrainConfig(Settings):
    """Next-token training of a decoder on text."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    steps: int = Field(default=200, ge=1, le=100_000_000)
    sequence_length: int = Field(default=128, ge=8, le=1_048_576, description="Tokens.")
    batch_size: int = Field(
        default=32, ge=1, le=1_000_000, description="Sequences per step, all ranks."
    )
    gradient_accumulation: int = Field(
        default=1, ge=1, le=4096, description="Micro-batches per step."
    )
    learning_rate: float = Field(default=1e-3, gt=0, le=10)
    min_learning_rate: float = Field(default=1e-4, ge=0, le=10)
    warmup_steps: int = Field(default=20, ge=0)
    weight_decay: float = Field(default=0.1, ge=0, le=10)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    clip_norm: float = Field(default=1.0, gt=0)
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 autocast where the device computes it natively."
    )
    eval_every: int = Field(
        default=50, ge=1, description="Steps between evaluations on held-out text."
    )
    eval_batches: int = Field(default=8, ge=1, le=10_000)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    sample_prompt: str = Field(default="And ", max_length=1024)
    sample_tokens: int = Field(default=160, ge=0, le=4096)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warmup_steps > self.steps:
            raise ValueError(f"warmupSteps ({self.warmup_steps}) exceeds steps ({self.steps})")
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"minLearningRate ({self.min_learning_rate}) exceeds learningRate ({self.learning_rate})"
            )
        return self

    def suits_world(self, world_size: int) -> bool:
        """Whether the batch divides evenly over ranks and micro-batches."""
        return self.batch_size % (world_size * self.gradient_accumulation) == 0

    def check_world(self, world_size: int) -> None:
        """Raise ValueError unless the batch divides evenly over ranks and micro-batches."""
        parts = world_size * self.gradient_accumulation
        if not self.suits_world(world_size):
            raise ValueError(
                f"batchSize ({self.batch_size}) must be a multiple of ranks x gradientAccumulation "
                f"({world_size} x {self.gradient_accumulation} = {parts})"
            )


RECIPES: dict[str, type[PretrainConfig]] = {"pretrain": PretrainConfig}


def parse_recipe(name: str, config: dict[str, object], world_size: int | None) -> PretrainConfig:
    """The typed settings of a recipe, for this many ranks if that is known.

    Raises ValueError with one line per problem: the field's path in the manifest, what was found,
    what is allowed.
    """
    if name not in RECIPES:
        raise ValueError(
            f"spec.recipe.name: {name!r} is unknown; known: {', '.join(sorted(RECIPES))}"
        )
    try:
        settings = RECIPES[name].model_validate(config)
    except ValidationError as error:
        raise ValueError("; ".join(_sentence(item) for item in error.errors())) from None
    try:
        if world_size is not None:
            settings.check_world(world_size)
    except ValueError as error:
        raise ValueError(f"spec.recipe.config: {error}") from None
    return settings


def usable_sizes(spec: TrainingJobSpec) -> tuple[int, ...]:
    """Numbers of replicas that the gang may have, falling; one unless it is elastic.

    An elastic gang that runs a recipe has the sizes that its batch divides over. Raises ValueError,
    as ``parse_recipe`` does, if there is none.
    """
    sizes, recipe, each = tuple(spec.sizes), spec.recipe, spec.processes_per_replica
    if recipe is None:
        return sizes
    if spec.elastic is None:
        parse_recipe(recipe.name, recipe.config, spec.world_size)
        return sizes
    settings = parse_recipe(recipe.name, recipe.config, None)
    usable = tuple(size for size in sizes if settings.suits_world(size * each))
    if not usable:
        # Say it of the largest size.
        parse_recipe(recipe.name, recipe.config, spec.world_size)
    return usable


def _sentence(item: object) -> str:
    assert isinstance(item, dict)
    path = ".".join(str(part) for part in ("spec.recipe.config", *item["loc"]))
    if item["type"] == "extra_forbidden":
        return f"{path}: no such setting"
    found = "" if isinstance(item["input"], dict) else f" (found {item['input']!r})"
    return f"{path}: {item['msg'].removeprefix('Value error, ')}{found}"
