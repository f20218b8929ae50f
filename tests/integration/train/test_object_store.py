"""Checkpoints in a bucket: real gangs, and a real S3 server that checks who writes."""

import pytest

from drakkar.exitcodes import ExitCode
from support.object_store import BUCKET, ObjectServer, object_server

STORAGE = f"s3://{BUCKET}/runs"


@pytest.fixture
def store(tmp_path_factory):
    with object_server(tmp_path_factory.mktemp("s3") / "data") as server:
        yield server


def steps(store: ObjectServer, job: str = "runs/job") -> list[str]:
    """Folders of published checkpoints, without the names of attempts."""
    found = [key.split("/") for key in store.objects(job) if key.endswith("/manifest.json")]
    return sorted(parts[-2].partition(".")[0] for parts in found)


def test_a_gang_goes_on_from_a_bucket_and_passes_over_what_is_damaged_there(lab, store, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    given = {"environ": {**store.environ, "TMPDIR": str(scratch)}, "storage": STORAGE}
    lab.train(2, steps=12, every=3, keep=2, **given)
    assert steps(store) == ["step-00000009", "step-00000012"]
    assert list(scratch.iterdir()) == [], "nothing is left on the node's disk"
    lab.train(2, steps=12, every=3)
    here = lab.checkpoints / "step-00000012/model.safetensors"
    (there,) = (store.folder / BUCKET / "runs/job").glob("step-00000012.*/model.safetensors")
    assert here.read_bytes() == there.read_bytes()

    victim = next(there.parent.glob("__1_*.distcp"))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    half = store.folder / BUCKET / "runs/job/step-00000015.9-torn"
    half.mkdir()
    (half / "__0_0.distcp").write_bytes(b"half a file")

    running = lab.train(1, steps=15, every=3, keep=2, **given)
    text = running.text()
    assert "__1_0.distcp has CRC-32" in text and "trying the one before" in text
    assert "resuming at step 9 " in text, "resharded from two ranks to one"
    assert steps(store) == ["step-00000012", "step-00000015"]
    kept = {key.split("/")[2] for key in store.objects("runs/job")}
    assert not any(name.endswith("torn") for name in kept)

    # What was set aside is there under its own name, without a manifest.
    (path,) = (
        key.split("/")[2]
        for key in store.objects("runs/job")
        if key.startswith("runs/job/step-00000012.") and key.endswith("/manifest.json")
    )
    other = lab.train(1, steps=15, restore_from=f"job/{path}", job="next", **given)
    assert "resuming at step 12 " in other.text()
    assert steps(store, "runs/next")[-1] == "step-00000015"


@pytest.mark.parametrize(
    ("change", "storage", "words"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, STORAGE, "SignatureDoesNotMatch"),
        ({}, "s3://no-such-bucket/runs", "NoSuchBucket"),
    ],
)
def test_what_the_store_refuses_is_told_at_the_start(lab, store, change, storage, words):
    running = lab.train(
        1, storage=storage, environ={**store.environ, **change}, expect=ExitCode.CONFIG
    )
    assert f"ConfigError: checkpoint storage {storage}/job can't be written: {words}" in (
        running.text()
    )
