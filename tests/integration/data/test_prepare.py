"""Preparations as processes: killed at any point, several at work, from another machine's store."""

import gzip
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from drakkar_workers.data.prepare import manifest
from support.s3 import s3_store

COMMAND = [sys.executable, "-m", "drakkar_workers.data", "prepare"]
OPTIONS = ["--tokenizer", "bpe:400", "--held-out", "0.1", "--shard-tokens", "20000"]


def lines(seed: int, count: int = 150) -> bytes:
    chosen = random.Random(seed)
    texts = (
        " ".join(f"word{chosen.randrange(500)}" for _ in range(chosen.randrange(20, 90)))
        for _ in range(count)
    )
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    for number in range(6):
        # Half of each file is in the next one, too.
        data = lines(number) + lines(number + 1, 75)
        (folder / f"{number}.jsonl.gz").write_bytes(gzip.compress(data, mtime=0))
    return folder


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    subprocess.run(
        [*COMMAND, str(source), "--out", str(out), *OPTIONS, "--processes", "1"], check=True
    )
    found = manifest.read(out)
    assert found.documents["dropped.duplicate"] == 5 * 75
    assert len(found.shards["train"]) > 2
    return digests(out)


def digests(out):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.iterdir()}


def test_killed_in_every_stage_it_writes_the_same(source, undisturbed, tmp_path):
    command = [*COMMAND, str(source), "--out", str(tmp_path / "out"), *OPTIONS, "--processes", "2"]
    for stage in ("clean-*.parquet", "tokens-*.npz", "out/train-*.bin"):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 240
        # Whatever it does when this is seen, it is killed in the middle of it, or has just ended.
        while not list(tmp_path.glob(f".out.preparing-*/{stage}")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    subprocess.run(command, check=True, timeout=240)
    assert digests(tmp_path / "out") == undisturbed
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.preparing.lock", "out"]


def test_objects_of_a_bucket_are_read_as_files_are(source, tmp_path):
    objects = {f"texts/{path.name}": path.read_bytes() for path in source.iterdir()}
    command = [*COMMAND, "s3://corpus/texts", "--out", str(tmp_path / "out"), *OPTIONS]
    with s3_store("corpus", objects) as endpoint:
        environ = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        done = subprocess.run(
            [*command, "--processes", "1"],
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=240,
        )
    assert done.returncode == 0, done.stderr
    found = manifest.read(tmp_path / "out")
    assert [one.path for one in found.inputs] == [
        f"s3://corpus/texts/{i}.jsonl.gz" for i in range(6)
    ]
    assert found.documents["dropped.duplicate"] == 5 * 75
