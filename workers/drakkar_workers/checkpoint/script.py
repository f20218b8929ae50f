"""The checkpoints of a script: what memory and storage do, behind three calls."""

import json
import os
import signal
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from drakkar.protocol import GANG_ENV, GangConfig
from drakkar_workers import channel
from drakkar_workers.checkpoint.tree import join, split
from drakkar_workers.errors import TrainingError
from drakkar_workers.train import world as worlds
from drakkar_workers.train.checkpoint import layout, memory, restore, store
from drakkar_workers.train.checkpoint.layout import Manifest
from drakkar_workers.train.checkpoint.memory import Memory
from drakkar_workers.train.checkpoint.objects import Place, place, relative
from drakkar_workers.train.checkpoint.restore import Found
from drakkar_workers.train.checkpoint.saver import Outcome, Saver
from drakkar_workers.train.checkpoint.state import RandomState, rank_file
from drakkar_workers.train.world import World

T = TypeVar("T")
SAVE_PATIENCE_SECONDS = 3600.0


class Stateful(Protocol):
    """A model, an optimizer, a scheduler, ..."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, nested."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Take them back."""


class Checkpoint:
    """Saves and restores the given parts; every rank makes the same calls."""

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        every: int | None = None,
        memory_every: int | None = None,
        keep: int | None = None,
        shared: bool = True,
        **parts: Stateful,
    ) -> None:
        """``parts`` by name, such as ``model=model, optimizer=optimizer``.

        ``shared``: all ranks have the same state, as with DistributedDataParallel; otherwise each
        rank saves its own, and only a gang of the same size can go on from it. Raises ValueError
        without parts, TrainingError if the folder can't be written.
        """
        if not parts:
            raise ValueError("nothing to save: give parts by name, such as model=model")
        worlds.quieten()
        gang = _gang(os.environ)
        self._parts = parts
        self._world = _world()
        self._shared = shared
        self._every = every or (gang.checkpoint_every if gang else 50)
        self._memory_every = (
            memory_every if memory_every is not None else (gang.memory_every if gang else 0)
        )
        root = gang.checkpoint_root if gang else None
        chosen = folder or (gang.checkpoint_dir if gang else None)
        self._folder: Place | None = place(str(chosen)) if chosen else None
        self._root = place(root) if root else (self._folder.parent if self._folder else Path())
        self._saver = self._open(keep or (gang.checkpoint_keep if gang else 3))
        self._memory = self._remember()
        self._done = 0
        self._saved = -1
        self._started = time.time()
        self._productive = 0.0
        self._stall = 0.0
        self._last = time.monotonic()
        self._leave = False
        self._before = signal.signal(signal.SIGTERM, self._on_sigterm)

    def restore(self) -> int:
        """Take the newest state that all ranks can go on from; its step, 0 without one.

        Raises TrainingError if storage can't be read or holds the state of other parts.
        """
        rank, world, folder = self._world.rank, self._world, self._folder
        channel.send_phase(rank=rank, phase="restoring")
        stored = restore.by_first(world, store.of(folder).newest_step) if folder else 0
        source = "start"
        if self._from_memory(stored):
            source = "memory"
        elif folder is not None:
            found = restore.newest(folder, world, self._warn, pulse=self._pulse)
            if self._from_memory(found.manifest.step + 1 if found else 0):
                source = "memory"
            elif found is not None:
                self._from_storage(found)
                source = "storage"
        if self._memory is not None and source != "memory":
            self._memory.settle(self._done, None)
        if world.is_first:
            channel.send_resume(step=self._done, source=source)  # type: ignore[arg-type]
            if self._done:
                print(f"resuming at step {self._done} from {source}", flush=True)
        channel.send_phase(rank=rank, phase="training")
        self._last = time.monotonic()
        return self._done

    def step(self, step: int, *, total_steps: int = 0, loss: float | None = None) -> bool:
        """Step ``step`` is done (1 is the first): report it, and save what is due.

        True if the gang is asked to leave; its state is saved then, and the script should exit with
        ``LEAVE``. Raises TrainingError if the folder belongs to a newer run, or if the state of a
        gang that leaves can't be saved.
        """
        took = time.monotonic() - self._last
        self._productive += took
        self._done = step
        channel.send_step(
            rank=self._world.rank,
            step=step,
            total_steps=max(total_steps, step),
            loss=loss,
            step_seconds=took,
            productive_seconds=self._productive,
            stall_seconds=self._stall,
            started=self._started,
        )
        begin = time.monotonic()
        leave = self._world.sum((float(self._leave),))[0] > 0
        self._note(self._saver.poll() if self._saver else None)
        if leave:
            self.close()
        elif self._saver is not None and step % self._every == 0:
            self._save()
        if self._memory is not None and self._memory_every and step % self._memory_every == 0:
            tensors, own = self._state()
            self._memory.save(step, tensors, meta=self._manifest().model_dump(), own=own)
        self._last = time.monotonic()
        self._stall = self._last - begin
        return leave

    def close(self) -> None:
        """Save the last step if storage lacks it, and wait. Raises TrainingError if that fails."""
        signal.signal(signal.SIGTERM, self._before)
        if self._saver is None:
            return
        channel.send_phase(rank=self._world.rank, phase="saving")
        self._note(self._saver.wait())
        if self._saved == self._done:
            return
        self._save()
        outcome = self._saver.wait()
        self._note(outcome)
        if outcome is None or outcome.folder is None:
            why = outcome.error if outcome else "no outcome"
            raise TrainingError("CheckpointFailed", f"step {self._done} could not be saved: {why}")

    def _open(self, keep: int) -> Saver | None:
        folder, world = self._folder, self._world
        if folder is None:
            return None
        attempt = world.from_first(
            f"{os.environ.get(channel.EPOCH_ENV, '0')}-{uuid.uuid4().hex[:8]}"
        )

        def claim() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            layout.claim(folder, attempt)
            store.of(folder).clean(attempt)

        restore.by_first(world, claim)
        return Saver(
            folder,
            keep=keep,
            attempt=attempt,
            world=world,
            pulse=self._pulse,
            patience=SAVE_PATIENCE_SECONDS,
        )

    def _remember(self) -> Memory | None:
        arena = memory.from_environ(os.environ) if self._memory_every else None
        if not all(self._world.gather(arena is not None)):
            return None
        assert arena is not None
        epoch = os.environ.get(channel.EPOCH_ENV, "0")
        return Memory(
            arena,
            self._world,
            epoch=int(epoch) if epoch.isdigit() else 0,
            shared=self._shared,
            warn=self._warn,
            pulse=self._pulse,
            group=self._world.saver,
        )

    def _from_memory(self, at_least: int) -> bool:
        found = self._memory.recall(at_least) if self._memory is not None else None
        if self._memory is None or found is None:
            return False
        tensors = self._memory.take(found)
        self._resume(Manifest.model_validate(found.meta), tensors, found.own)
        self._memory.settle(found.key.step, found.key)
        return True

    def _from_storage(self, found: Found) -> None:
        manifest, rank = found.manifest, self._world.rank
        same_world = manifest.world_size == self._world.size
        if not same_world and not self._shared:
            raise TrainingError(
                "CheckpointUnusable",
                f"{found.folder} holds the own states of {manifest.world_size} ranks, and these are "
                f"{self._world.size}",
            )
        prefix = "" if self._shared else f"rank-{rank}."
        known = restore.reader(found.folder).read_metadata().state_dict_metadata
        tensors = {
            name: torch.empty(entry.size, dtype=entry.properties.dtype)
            for name, entry in known.items()
            if isinstance(entry, TensorStorageMetadata) and name.startswith(prefix)
        }
        restore.load_tensors(found.folder, tensors)
        named = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        own = (found.folder / rank_file(rank if same_world else 0)).read_bytes()
        self._resume(manifest, named, own)
        self._saved = manifest.step

    def _resume(self, manifest: Manifest, tensors: Mapping[str, Tensor], own: bytes) -> None:
        try:
            said = json.loads(own)
            for name, part in self._parts.items():
                part.load_state_dict(join(said["parts"][name], tensors))
        except (ValueError, KeyError, RuntimeError) as error:
            raise TrainingError(
                "CheckpointUnusable", f"the checkpoint of step {manifest.step}: {error}"
            ) from error
        if manifest.world_size == self._world.size:
            RandomState.load(json.dumps(said["random"]).encode()).restore(self._world.device)
        self._done = manifest.step
        self._started = manifest.started
        self._productive = manifest.productive_seconds

    def _state(self) -> tuple[dict[str, Tensor], bytes]:
        tensors: dict[str, Tensor] = {}
        parts = {
            name: split(part.state_dict(), name, tensors) for name, part in self._parts.items()
        }
        random = json.loads(RandomState.capture(self._world.device).dump())
        return tensors, json.dumps({"parts": parts, "random": random}).encode()

    def _manifest(self) -> Manifest:
        return Manifest(
            step=self._done,
            world_size=self._world.size,
            time=time.time(),
            started=self._started,
            productive_seconds=self._productive,
            recipe={},
            recipe_sha256="",
            model={},
            data_sha256="",
            files={},
        )

    def _save(self) -> None:
        assert self._saver is not None
        tensors, own = self._state()
        if not self._shared:
            tensors = {f"rank-{self._world.rank}.{name}": t for name, t in tensors.items()}
        self._saved = self._done
        self._note(self._saver.save(tensors, manifest=self._manifest(), own=own))

    def _note(self, outcome: Outcome | None) -> None:
        if outcome is None:
            return
        if outcome.superseded:
            raise TrainingError("Superseded", outcome.error or "a newer run has the folder")
        if outcome.folder is None:
            self._saved = -1 if self._saved == outcome.step else self._saved
            if self._world.is_first:
                self._warn(f"the checkpoint of step {outcome.step} failed: {outcome.error}")
        elif self._world.is_first:
            path = relative(outcome.folder, self._root)
            channel.send_checkpoint(step=outcome.step, path=path)

    def _pulse(self) -> None:
        channel.send_phase(rank=self._world.rank, phase="saving")

    def _warn(self, text: str) -> None:
        print(f"[rank {self._world.rank}] warning: {text}", file=sys.stderr, flush=True)

    def _on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        self._leave = True


@dataclass(frozen=True, slots=True)
class _ScriptWorld(World):
    """A script's own groups are its own: words between ranks go through a group beside them."""

    control: dist.ProcessGroup | None = None

    def sum(self, values: Sequence[float]) -> list[float]:
        word = torch.tensor(values, dtype=torch.float64)
        if self.size > 1:
            dist.all_reduce(word, group=self.control)
        result: list[float] = word.tolist()
        return result

    def from_first(self, value: T) -> T:
        return self._broadcast(value, self.control)

    def gather(self, value: T) -> list[T]:
        return self._gather(value, self.control)


def _world() -> World:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return World(0, 1, device, None)
    groups = [dist.new_group(backend="gloo") for _ in range(2)]
    saver, control = groups
    assert isinstance(saver, dist.ProcessGroup) and isinstance(control, dist.ProcessGroup)
    return _ScriptWorld(dist.get_rank(), dist.get_world_size(), device, saver, control)


def _gang(environ: Mapping[str, str]) -> GangConfig | None:
    text = environ.get(GANG_ENV)
    return GangConfig.model_validate_json(text) if text else None
