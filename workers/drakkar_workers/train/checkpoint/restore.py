"""Finds the newest checkpoint that is whole, and loads it. All ranks take part and agree."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load

from drakkar_workers.train.checkpoint import layout
from drakkar_workers.train.checkpoint.layout import Manifest
from drakkar_workers.train.world import World


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint whose files are all as its manifest says."""

    folder: Path
    manifest: Manifest


def newest(
    directory: Path, world: World, warn: Callable[[str], None], *, move: bool = True
) -> Found | None:
    """The newest whole checkpoint in a folder of checkpoints; ``move`` sets damaged ones aside.

    Rank 0 lists, every rank checks its share of the files, and one rank's doubt is enough.
    """
    for step in world.from_first(layout.published(directory)):
        folder = directory / layout.folder_name(step)
        found, trouble = check(folder, world)
        if found is not None:
            return found
        if world.is_first:
            warn(f"checkpoint {folder} is damaged ({trouble}); trying the one before")
            if move:
                layout.set_aside(folder)
    return None


def check(folder: Path, world: World) -> tuple[Found | None, str | None]:
    """The checkpoint in this folder, or what is wrong with it; the same on all ranks."""
    manifest: Manifest | None = None
    trouble: str | None = None
    if world.is_first:
        try:
            manifest = layout.read_manifest(folder)
        except ValueError as error:
            trouble = str(error)
    manifest, trouble = world.from_first((manifest, trouble))
    if manifest is None:
        return None, trouble
    names = sorted(manifest.files)[world.rank :: world.size]
    mine = layout.problem(folder, {name: manifest.files[name] for name in names})
    troubles = [text for text in world.gather(mine) if text]
    return (None, troubles[0]) if troubles else (Found(folder, manifest), None)


def load_tensors(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Read a checkpoint's tensors into these, in place; every rank reads what it needs.

    Works for any number of ranks, whatever number wrote it. Without collectives: a plan that all
    ranks must gather is what times out in large gangs (accelerate#4086).
    """
    load(dict(tensors), storage_reader=FileSystemReader(folder), no_dist=True)
