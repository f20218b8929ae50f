"""Writes checkpoints while the training goes on.

``save`` copies the tensors to host memory and returns; a thread then writes them through
torch.distributed.checkpoint, each rank its share, and rank 0 publishes the folder when all are done.
A failure is an ``Outcome`` with an error, the same on all ranks, never an exception in the training.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from drakkar_workers.train.checkpoint import layout, store
from drakkar_workers.train.checkpoint.layout import FileRecord, Manifest
from drakkar_workers.train.checkpoint.objects import Place
from drakkar_workers.train.checkpoint.state import Staging, rank_file
from drakkar_workers.train.world import World

WAIT_SECONDS = 0.25

Export = Callable[[Path, dict[str, Tensor]], None]
"""Writes further files of a checkpoint (rank 0 only) into its folder."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one save ended."""

    step: int
    folder: Place | None
    """The published folder, None if it failed."""
    error: str | None
    seconds: float
    superseded: bool = False
    """A newer attempt owns the folder: nothing may be published there any more."""


class Saver:
    """Saves into one checkpoint folder; every rank has one and calls it at the same steps."""

    def __init__(
        self,
        directory: Place,
        *,
        keep: int,
        attempt: str,
        world: World,
        pulse: Callable[[], None] = lambda: None,
        patience: float = 0.0,
    ) -> None:
        """``pulse`` is called again and again while a save is waited for.

        For ``patience`` seconds after that save began: then silence shows that storage hangs.
        """
        self._directory = directory
        self._store = store.of(directory)
        self._keep = keep
        self._attempt = attempt
        self._world = world
        self._staging = Staging()
        self._pulse = pulse
        self._patience = patience
        self._began = 0.0
        self._thread: threading.Thread | None = None
        self._outcome: Outcome | None = None

    def save(
        self,
        tensors: dict[str, Tensor],
        *,
        manifest: Manifest,
        own: bytes,
        export: Export | None = None,
    ) -> Outcome | None:
        """Start to save; returns the outcome of the save before, if none has taken it yet.

        ``manifest`` lacks its files, ``own`` is this rank's own state. Waits for the save before.
        """
        before = self.wait()
        staged = self._staging.copy(tensors)
        # A daemon: a thread that waits for a dead peer must not keep the process alive.
        self._thread = threading.Thread(
            target=self._run, args=(staged, manifest, own, export), name="saver", daemon=True
        )
        self._began = time.monotonic()
        self._thread.start()
        return before

    def poll(self) -> Outcome | None:
        """The outcome of a save that has ended and was not told yet; never waits."""
        if self._thread is not None and self._thread.is_alive():
            return None
        return self.wait()

    def wait(self) -> Outcome | None:
        """Like ``poll``, but waits for a save that is under way."""
        if self._thread is not None:
            while self._thread.is_alive() and time.monotonic() - self._began < self._patience:
                self._thread.join(WAIT_SECONDS)
                self._pulse()
            self._thread.join()
            self._thread = None
        outcome, self._outcome = self._outcome, None
        return outcome

    def _run(
        self, tensors: dict[str, Tensor], manifest: Manifest, own: bytes, export: Export | None
    ) -> None:
        begin = time.monotonic()
        folder: Place | None = None
        superseded = False
        try:
            folder, error, superseded = self._write(tensors, manifest, own, export)
        except Exception as failure:
            error = describe(failure)
        seconds = time.monotonic() - begin
        self._outcome = Outcome(manifest.step, folder, error, seconds, superseded)

    def _write(
        self, tensors: dict[str, Tensor], manifest: Manifest, own: bytes, export: Export | None
    ) -> tuple[Place | None, str | None, bool]:
        """The published folder, or what went wrong and whether that is a newer owner.

        Raises only if the peers are out of reach.
        """
        draft = self._store.draft(manifest.step, self._attempt, self._world.rank)
        files: dict[str, FileRecord] = {}
        error: str | None = None
        try:
            self._write_tensors(draft.folder, tensors)
            files = self._write_own(draft.folder, tensors, own, export)
            draft.bring(files)
        except BaseException as failure:
            # DCP's CheckpointException is no Exception.
            error = describe(failure)
        reports = self._world.saver_gather((error, files))
        folder: Place | None = None
        superseded = False
        if self._world.is_first:
            error = next((text for text, _ in reports if text), None)
            if error is None:
                merged = {name: record for _, part in reports for name, record in part.items()}
                try:
                    layout.check_owner(self._directory, self._attempt)
                    folder = draft.publish(manifest.model_copy(update={"files": merged}))
                    layout.check_owner(self._directory, self._attempt)
                    self._store.prune(self._keep, folder)
                except layout.SupersededError as failure:
                    error, superseded = str(failure), True
                except (OSError, ValueError) as failure:
                    error = describe(failure)
        draft.end(first=self._world.is_first, published=folder is not None)
        return self._world.saver_from_first((folder, error, superseded))

    def _write_tensors(self, temporary: Path, tensors: dict[str, Tensor]) -> None:
        save(
            dict(tensors),
            storage_writer=_Writer(temporary, sync_files=True),
            process_group=self._world.saver,
            no_dist=self._world.size == 1,
        )

    def _write_own(
        self, temporary: Path, tensors: dict[str, Tensor], own: bytes, export: Export | None
    ) -> dict[str, FileRecord]:
        """Write the files that only this rank writes; records of all its files."""
        rank = self._world.rank
        layout.write_synced(temporary / rank_file(rank), own)
        mine = [rank_file(rank), *(path.name for path in temporary.glob(f"__{rank}_*.distcp"))]
        if self._world.is_first:
            mine.append(".metadata")
            if export is not None:
                before = {path.name for path in temporary.iterdir()}
                export(temporary, tensors)
                added = {path.name for path in temporary.iterdir()} - before
                # Peers may be writing their own files at the same time.
                mine += [name for name in added if not name.startswith(("__", "rank-"))]
        return {name: layout.record(temporary / name) for name in mine}


class _Writer(FileSystemWriter):
    """DCP's writer, but a full disk is called so."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this rank's share. Raises OSError where the system's error is known."""
        try:
            return super().write_data(plan, planner)
        except Exception as error:
            # torch.save then fails again while it closes the file, with words nobody understands,
            # and only the last error travels to rank 0.
            cause: BaseException | None = error
            while cause is not None:
                if isinstance(cause, OSError):
                    raise OSError(cause.errno, cause.strerror, str(self.path)) from error
                cause = cause.__context__
            raise


def describe(error: BaseException) -> str:
    """One line for a person: DCP wraps the cause of a failure in a table of tracebacks."""
    failures = getattr(error, "failures", None)
    if failures:
        rank, (cause, _) = next(iter(sorted(failures.items())))
        return f"rank {rank}: {describe(cause)}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:500]}" if text else type(error).__name__
