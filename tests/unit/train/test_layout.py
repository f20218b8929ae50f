import errno
from pathlib import Path

import pytest

from drakkar_workers.train.checkpoint import layout
from drakkar_workers.train.checkpoint.layout import Manifest


def write(directory: Path, step: int, content: bytes = b"tensors", attempt: str = "a") -> Path:
    folder = directory / layout.temporary_name(step, attempt)
    folder.mkdir(parents=True)
    (folder / "__0_0.distcp").write_bytes(content)
    return folder


def manifest(folder: Path, step: int) -> Manifest:
    return Manifest(
        step=step,
        world_size=1,
        time=2.0,
        started=1.0,
        productive_seconds=0.5,
        recipe={},
        recipe_sha256=layout.recipe_digest({}),
        model={},
        data_sha256="",
        files={path.name: layout.record(path) for path in folder.iterdir()},
    )


def publish(directory: Path, step: int, content: bytes = b"tensors") -> Path:
    folder = write(directory, step, content)
    return layout.publish(folder, manifest(folder, step))


def test_a_published_checkpoint_is_whole(tmp_path):
    folder = publish(tmp_path, 50)
    assert folder == tmp_path / "step-00000050"
    found = layout.read_manifest(folder)
    assert found.step == 50
    assert layout.problem(folder, found.files) is None
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000050"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.write_bytes(b"tens"), "__0_0.distcp has 4 bytes, expected 7"),
        (lambda p: p.write_bytes(b"tensorz"), "__0_0.distcp has CRC-32"),
    ],
)
def test_damage_is_found_and_named(damage, message, tmp_path):
    folder = publish(tmp_path, 1)
    damage(folder / "__0_0.distcp")
    assert message in layout.problem(folder, layout.read_manifest(folder).files)


def test_a_file_that_is_not_there_is_told_apart_from_damage(tmp_path):
    folder = publish(tmp_path, 1)
    (folder / "__0_0.distcp").unlink()
    with pytest.raises(FileNotFoundError):
        layout.problem(folder, {"__0_0.distcp": layout.FileRecord(size=7, crc32=0)})


def test_a_folder_that_cannot_be_read_is_not_empty(tmp_path, monkeypatch):
    def scandir(path):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(layout.os, "scandir", scandir)
    with pytest.raises(OSError, match="Stale"):
        layout.published(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"step": 1}', b'{"step": "x"}', b"\0" * 64]
)
def test_a_torn_manifest_is_named(content, tmp_path):
    folder = publish(tmp_path, 1)
    (folder / layout.MANIFEST).write_bytes(content)
    with pytest.raises(ValueError, match=r"^manifest\.json"):
        layout.read_manifest(folder)


def test_a_manifest_of_another_step_is_not_believed(tmp_path):
    publish(tmp_path, 1).rename(tmp_path / "step-00000002")
    with pytest.raises(ValueError, match=r"manifest\.json is of step 1"):
        layout.read_manifest(tmp_path / "step-00000002")


def test_a_file_of_another_rank_that_is_not_here_prevents_publication(tmp_path):
    folder = write(tmp_path, 1)
    record = manifest(folder, 1)
    other = record.model_copy(
        update={"files": {**record.files, "__1_0.distcp": layout.FileRecord(size=1, crc32=0)}}
    )
    with pytest.raises(ValueError, match="all pods must share the checkpoint folder"):
        layout.publish(folder, other)
    assert layout.published(tmp_path) == []


def test_a_step_published_again_takes_the_place_of_the_first(tmp_path):
    publish(tmp_path, 1, b"old")
    folder = publish(tmp_path, 1, b"new")
    assert (folder / "__0_0.distcp").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_a_crash_before_the_rename_leaves_no_checkpoint(tmp_path, monkeypatch):
    folder = write(tmp_path, 2)

    def crash(self, target):
        raise OSError(errno.EIO, "Input/output error")

    publish(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crash)
        with pytest.raises(OSError):
            layout.publish(folder, manifest(folder, 2))
    assert layout.published(tmp_path) == [1]


def test_only_published_folders_count(tmp_path):
    for name in (
        "step-00000010",
        "step-00000002",
        "step-123456789",
        ".tmp-step-00000099-a",
        "step-x",
    ):
        (tmp_path / name).mkdir()
    (tmp_path / "step-00000011").write_text("a file")
    assert layout.published(tmp_path) == [123456789, 10, 2]
    assert layout.published(tmp_path / "none") == []


def test_prune_keeps_the_newest(tmp_path):
    for step in (5, 30, 10, 20):
        publish(tmp_path, step)
    layout.prune(tmp_path, 2, newest=30)
    assert layout.published(tmp_path) == [30, 20]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("keep", "left"), [(0, [40, 30, 20]), (1, [40, 30, 20]), (2, [40, 30, 20, 10])]
)
def test_prune_keeps_what_was_just_published(keep, left, tmp_path):
    for step in (5, 10, 20, 30, 40):
        publish(tmp_path, step)
    layout.prune(tmp_path, keep, newest=20)
    assert layout.published(tmp_path) == left


def test_clean_leaves_this_attempt_alone(tmp_path):
    write(tmp_path, 1, attempt="old")
    mine = write(tmp_path, 2, attempt="new")
    layout.clean(tmp_path, "new")
    assert list(tmp_path.iterdir()) == [mine]


def test_one_damaged_folder_is_kept_aside(tmp_path):
    for step in (1, 2):
        layout.set_aside(publish(tmp_path, step))
    assert [path.name for path in tmp_path.iterdir()] == [".corrupt-step-00000002"]


def test_what_the_same_search_set_aside_stays(tmp_path):
    names = [layout.set_aside(publish(tmp_path, 1))]
    names = [layout.set_aside(publish(tmp_path, 3))]
    names.append(layout.set_aside(publish(tmp_path, 2), names))
    assert {path.name for path in tmp_path.iterdir()} == set(names)


def test_clean_before_the_attempt_has_a_name_sweeps_all(tmp_path):
    write(tmp_path, 1, attempt="old")
    layout.clean(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_digest_of_a_recipe_ignores_order():
    assert layout.recipe_digest({"a": 1, "b": 2}) == layout.recipe_digest({"b": 2, "a": 1})
    assert layout.recipe_digest({"a": 1}) != layout.recipe_digest({"a": 2})


def test_the_newest_claim_owns_the_folder(tmp_path):
    layout.check_owner(tmp_path, "1-a")
    layout.claim(tmp_path, "1-a")
    layout.check_owner(tmp_path, "1-a")
    layout.claim(tmp_path, "1-b")
    with pytest.raises(layout.SupersededError, match="belongs to attempt '1-b' now"):
        layout.check_owner(tmp_path, "1-a")
    assert [path.name for path in tmp_path.iterdir()] == [layout.OWNER]


def test_checking_shows_life(tmp_path):
    folder = publish(tmp_path, 1)
    pulses = []
    files = layout.read_manifest(folder).files
    assert layout.problem(folder, files, lambda: pulses.append(1)) is None
    assert pulses == [1]
