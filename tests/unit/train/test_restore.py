"""What counts as damage of a checkpoint, and what as a fault of the storage."""

import errno
import os
from pathlib import Path

import pytest
import torch

from drakkar_workers.errors import ConfigError, TrainingError
from drakkar_workers.train import entry
from drakkar_workers.train.checkpoint import layout, restore
from drakkar_workers.train.checkpoint.layout import Manifest
from drakkar_workers.train.world import World

ALONE = World(0, 1, torch.device("cpu"), None)


def publish(directory: Path, step: int) -> Path:
    folder = directory / layout.temporary_name(step, "a")
    folder.mkdir(parents=True)
    (folder / "__0_0.distcp").write_bytes(b"tensors")
    return layout.publish(
        folder,
        Manifest(
            step=step,
            world_size=1,
            time=2.0,
            started=1.0,
            productive_seconds=0.5,
            recipe={},
            recipe_sha256="",
            model={},
            data_sha256="",
            files={"__0_0.distcp": layout.record(folder / "__0_0.distcp")},
        ),
    )


def newest(directory: Path) -> restore.Found | None:
    return restore.newest(directory, ALONE, lambda _text: None)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.ETIMEDOUT])
@pytest.mark.parametrize("name", ["__0_0.distcp", layout.MANIFEST])
def test_a_read_error_leaves_all_checkpoints_where_they_are(number, name, tmp_path, monkeypatch):
    for step in (1, 2):
        publish(tmp_path, step)
    real = Path.open

    def fail(self, *arguments, **options):
        if self.name == name:
            raise OSError(number, os.strerror(number), str(self))
        return real(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fail)
        with pytest.raises(TrainingError, match=os.strerror(number)) as caught:
            newest(tmp_path)
    assert caught.value.reason == "StorageError"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]
    found = newest(tmp_path)
    assert found is not None and found.manifest.step == 2


def test_all_damaged_ones_of_a_search_are_kept(tmp_path):
    for step in (1, 2, 3):
        publish(tmp_path, step)
    (tmp_path / "step-00000003" / "__0_0.distcp").unlink()
    (tmp_path / "step-00000002" / "__0_0.distcp").write_bytes(b"tensorz")
    found = newest(tmp_path)
    assert found is not None and found.manifest.step == 1
    assert len(list(tmp_path.glob(".corrupt-*"))) == 2


class Two(World):
    """Rank 0 beside a rank that tells what the test says."""

    other: restore._View

    def gather(self, value):
        return [value, self.other]


def two(other: restore._View) -> World:
    world = Two(0, 1, torch.device("cpu"), None)
    object.__setattr__(world, "other", other)
    return world


def test_a_file_that_only_another_rank_misses_is_no_damage(tmp_path):
    folder = publish(tmp_path, 1)
    world = two(restore._View(missing="__0_0.distcp"))
    with pytest.raises(TrainingError, match="rank 1 does not see"):
        restore.check(folder, world)


def test_a_read_error_of_another_rank_goes_before_damage(tmp_path):
    folder = publish(tmp_path, 1)
    (folder / "__0_0.distcp").write_bytes(b"x")
    with pytest.raises(TrainingError, match="rank 1: Input/output error"):
        restore.check(folder, two(restore._View(unread="Input/output error")))


@pytest.mark.parametrize(
    ("number", "final"),
    [
        (errno.EACCES, True),
        (errno.EPERM, True),
        (errno.EROFS, True),
        (errno.ENOTDIR, True),
        (errno.ENOSPC, False),
        (errno.EDQUOT, False),
        (errno.EIO, False),
        (errno.ESTALE, False),
    ],
)
def test_only_what_is_forbidden_ends_the_job(number, final, tmp_path, monkeypatch):
    def touch(self):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "touch", touch)
    with pytest.raises(
        ConfigError if final else TrainingError, match=os.strerror(number)
    ) as caught:
        entry.check_writable(tmp_path, 0)
    if not final:
        assert caught.value.reason == "StorageError"


def test_what_former_tries_left_makes_room_first(tmp_path):
    (tmp_path / ".tmp-step-00000001-x").mkdir()
    entry.check_writable(tmp_path, 1)
    assert len(list(tmp_path.iterdir())) == 1, "rank 0 does it"
    entry.check_writable(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_cannot_be_read_may_be_tried_again(tmp_path, monkeypatch):
    def stat(self, **_options):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(TrainingError) as caught:
        entry._source(tmp_path / "step-00000001", ALONE, None)
    assert caught.value.reason == "StorageError"
