"""Checkpoints in an object store that works in memory: what is published, kept and told."""

import errno
import io
import pickle

import obstore
import pytest
from obstore.store import MemoryStore

from drakkar_workers.train.checkpoint import bucket, layout, objects
from drakkar_workers.train.checkpoint.layout import FileRecord, Manifest
from drakkar_workers.train.checkpoint.objects import ObjectPath, at


@pytest.fixture
def runs(monkeypatch) -> ObjectPath:
    store = MemoryStore()
    monkeypatch.setattr(objects, "_connect", lambda root: store)
    return at("s3://bucket/runs/job")


def manifest(step: int, files: dict[str, FileRecord]) -> Manifest:
    return Manifest(
        step=step,
        world_size=1,
        time=2.0,
        started=1.0,
        productive_seconds=0.5,
        recipe={},
        recipe_sha256="",
        model={},
        data_sha256="",
        files=files,
    )


def publish(runs: ObjectPath, step: int, attempt: str = "1-a") -> ObjectPath:
    folder = runs / bucket.name_of(step, attempt)
    (folder / "__0_0.distcp").write_bytes(b"tensors")
    return bucket.publish(
        folder, manifest(step, {"__0_0.distcp": layout.record(folder / "__0_0.distcp")})
    )


def test_only_what_has_a_manifest_is_published(runs):
    publish(runs, 5)
    publish(runs, 10)
    (runs / bucket.name_of(15, "1-a") / "__0_0.distcp").write_bytes(b"half")
    (runs / "run.json").write_bytes(b"{}")
    assert bucket.published(runs) == ["step-00000010.1-a", "step-00000005.1-a"]


def test_of_two_attempts_at_a_step_the_later_one_is_found_first(runs):
    publish(runs, 5, "9-a")
    publish(runs, 5, "2-b")
    assert bucket.published(runs) == ["step-00000005.2-b", "step-00000005.9-a"]


@pytest.mark.parametrize("size", [6, None])
def test_nothing_is_published_of_which_a_part_is_missing(size, runs):
    folder = runs / bucket.name_of(5, "1-a")
    if size:
        (folder / "a").write_bytes(b"x" * size)
    with pytest.raises(ValueError, match=f"has {size or 'no'} bytes, expected 7"):
        bucket.publish(folder, manifest(5, {"a": FileRecord(size=7, crc32=0)}))
    assert bucket.published(runs) == []


def test_damage_is_found_by_the_checksum(runs):
    folder = publish(runs, 5)
    files = layout.read_manifest(folder).files
    assert layout.problem(folder, files) is None
    (folder / "__0_0.distcp").write_bytes(b"tensorz")
    assert "has CRC-32" in str(layout.problem(folder, files))
    (folder / "__0_0.distcp").write_bytes(b"tens")
    assert "has 4 bytes, expected 7" in str(layout.problem(folder, files))


def test_a_manifest_of_another_step_is_not_believed(runs):
    folder = runs / bucket.name_of(5, "1-a")
    bucket.publish(folder, manifest(6, {}))
    with pytest.raises(ValueError, match="is of step 6"):
        layout.read_manifest(folder)


def test_what_is_damaged_is_kept_aside_until_the_next_is(runs):
    for step in (5, 10, 15):
        publish(runs, step)
    first = bucket.set_aside(runs / "step-00000015.1-a")
    second = bucket.set_aside(runs / "step-00000010.1-a", {first})
    assert bucket.published(runs) == ["step-00000005.1-a"]
    bucket.clean(runs)
    assert {entry.path.partition("/")[0] for entry in runs.below()} == {
        first,
        second,
        "step-00000005.1-a",
    }
    bucket.set_aside(runs / "step-00000005.1-a")
    assert {entry.path.partition("/")[0] for entry in runs.below()} == {"step-00000005.1-a"}


def test_prune_keeps_the_newest_up_to_what_was_published(runs):
    for step in (5, 10, 15, 99):
        publish(runs, step)
    publish(runs, 15, "2-b")
    bucket.prune(runs, 2, "step-00000015.2-b")
    assert bucket.published(runs) == [
        "step-00000099.1-a",
        "step-00000015.2-b",
        "step-00000010.1-a",
    ]


def test_clean_deletes_what_others_left_unfinished(runs):
    publish(runs, 5)
    for attempt in ("1-a", "2-b"):
        (runs / bucket.name_of(10, attempt) / "part").write_bytes(b"x")
    bucket.clean(runs, "2-b")
    assert sorted(entry.path for entry in runs.below() if entry.path.endswith("part")) == [
        "step-00000010.2-b/part"
    ]
    assert bucket.published(runs) == ["step-00000005.1-a"]


def test_a_crash_in_the_middle_of_a_deletion_leaves_nothing_to_load(runs, monkeypatch):
    folder = publish(runs, 5)

    def fail(self):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(ObjectPath, "below", fail)
        with pytest.raises(OSError):
            bucket.discard(folder)
    assert bucket.published(runs) == []


def test_the_newest_claim_owns_the_folder(runs):
    layout.claim(runs, "1-a")
    layout.check_owner(runs, "1-a")
    layout.claim(runs, "2-b")
    with pytest.raises(layout.SupersededError, match="belongs to attempt '2-b'"):
        layout.check_owner(runs, "1-a")


def test_objects_are_read_anywhere(runs, monkeypatch):
    content = bytes(range(256)) * 40
    (runs / "o").write_bytes(content)
    monkeypatch.setattr(objects, "READ_AHEAD", 1000)
    with (runs / "o").open("rb") as file:
        assert file.read(10) == content[:10]
        file.seek(-7, io.SEEK_END)
        assert file.read() == content[-7:]
        file.seek(300)
        assert file.read(5000) == content[300:5300]
        assert file.tell() == 5300


def test_a_place_travels_to_other_ranks(runs):
    other = pickle.loads(pickle.dumps(runs / "step"))
    assert other == runs / "step" and other.parent == runs and other.name == "step"
    assert objects.relative(other, at("s3://bucket/runs")) == "job/step"
    assert objects.relative(other, at("s3://bucket")) == "runs/job/step"
    assert objects.relative(other, at("s3://other")) == str(other)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/x", "no place for checkpoints"),
        ("s3:///x", "no place for checkpoints"),
        ("s3://key:secret@bucket/x", "nothing but bucket"),
        ("s3://bucket/x?token=secret", "nothing but bucket"),
    ],
)
def test_urls_that_name_no_bucket_are_refused(url, words):
    with pytest.raises(ValueError, match=words) as caught:
        at(url)
    assert "key:secret" not in str(caught.value) and "token" not in str(caught.value)


def test_errors_are_those_of_the_system(runs, monkeypatch):
    with pytest.raises(FileNotFoundError) as missing:
        (runs / "nothing").read_bytes()
    assert missing.value.errno == errno.ENOENT
    answer = (
        "Error performing PUT: 403 Forbidden: <Error><Code>SignatureDoesNotMatch</Code>"
        "<Message>wrong key</Message><AWSAccessKeyId>AKIA</AWSAccessKeyId></Error>"
    )

    def put(*arguments, **options):
        raise obstore.exceptions.PermissionDeniedError(answer)

    monkeypatch.setattr(obstore, "put", put)
    with pytest.raises(PermissionError) as refused:
        (runs / "o").write_bytes(b"")
    assert refused.value.strerror == "SignatureDoesNotMatch: wrong key"
    assert refused.value.errno == errno.EACCES
