"""All recipes by name, and whether a manifest's settings can work."""

from pydantic import ValidationError

from drakkar.v1alpha1.recipes.dpo import DpoConfig
from drakkar.v1alpha1.recipes.finetune import LoraConfig, SftConfig
from drakkar.v1alpha1.recipes.pretrain import PretrainConfig
from drakkar.v1alpha1.recipes.training import TrainingConfig
from drakkar.v1alpha1.trainingjob import TrainingJobSpec

RECIPES: dict[str, type[TrainingConfig]] = {
    "dpo": DpoConfig,
    "lora": LoraConfig,
    "pretrain": PretrainConfig,
    "sft": SftConfig,
}


def parse_recipe(name: str, config: dict[str, object], world_size: int | None) -> TrainingConfig:
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
