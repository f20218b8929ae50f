"""Whole preparations, in this process and its pool."""

import hashlib
import json
import random

import numpy as np
import pytest
from tokenizers import Tokenizer

from drakkar.exitcodes import ExitCode
from drakkar_workers.data.prepare import command, manifest, stages, work

WORDS = [
    "ship",
    "sea",
    "wind",
    "sail",
    "men",
    "rowed",
    "home",
    "silver",
    "fish",
    "ice",
    "the",
    "of",
]


def text(seed: int, count: int = 80) -> str:
    chosen = random.Random(seed)
    return " ".join(chosen.choice(WORDS) + str(chosen.randrange(50)) for _ in range(count))


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for file in range(3):
        lines = [{"text": text(file * 100 + i), "l": f"cc-{file}"} for i in range(20)]
        lines.append({"text": text(0) + "\r\n"})
        lines.append({"text": "mail a@b.org or <|endoftext|> " + text(900 + file)})
        body = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{file}.jsonl").write_text(body)
    return folder


def run(source, out, *options):
    arguments = [str(source), "--out", str(out), "--licence-field", "l", "--mask-pii"]
    return command.main([*arguments, "--held-out", "0.2", "--processes", "1", *options])


def files(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_documents_come_out_as_whole_tokens(source, tmp_path):
    assert run(source, tmp_path / "out") == 0
    found = manifest.read(tmp_path / "out")
    assert found.documents == {
        "dropped.duplicate": 3,
        "dropped.nearDuplicate": 0,
        "kept": 63,
        "read": 66,
    }
    assert found.licences == {"cc-0": 20, "cc-1": 20, "cc-2": 20, "unknown": 3}
    assert found.masked == {"email": 3}
    assert [one.kept for one in found.inputs] == [21, 21, 21]
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    texts = []
    for shards in found.shards.values():
        for shard in shards:
            data = (tmp_path / "out" / shard.file).read_bytes()
            assert hashlib.sha256(data).hexdigest() == shard.sha256
            ids = np.frombuffer(data, found.dtype)
            assert len(ids) == shard.tokens
            ends = np.flatnonzero(ids == found.end_id)
            assert len(ends) == shard.documents and ends[-1] == len(ids) - 1
            texts += [tokenizer.decode(part[:-1]) for part in np.split(ids, ends[:-1] + 1)]
    for number in (0, 105, 219):
        assert any(text(number) in one for one in texts)
    special = [one.lstrip() for one in texts if "<EMAIL>" in one]
    assert len(special) == 3
    assert all(one.startswith("mail <EMAIL> or <|endoftext|> ") for one in special)
    held_out = sum(shard.documents for shard in found.shards["held-out"])
    assert 3 <= held_out <= 25


def test_a_second_run_changes_nothing(source, tmp_path):
    options = ("--tokenizer", "bpe:300", "--shard-tokens", "3000")
    assert run(source, tmp_path / "out", *options) == 0
    assert len(manifest.read(tmp_path / "out").shards["train"]) > 2
    before = (tmp_path / "out" / "manifest.json").stat().st_mtime_ns
    assert run(source, tmp_path / "out", *options) == 0
    assert (tmp_path / "out" / "manifest.json").stat().st_mtime_ns == before


def test_other_settings_do_not_take_a_result_s_place(source, tmp_path, capsys):
    assert run(source, tmp_path / "out") == 0
    before = files(tmp_path / "out")
    assert run(source, tmp_path / "out", "--quality", "gopher") == ExitCode.CONFIG
    assert "holds other data or the result of other settings" in capsys.readouterr().err
    assert files(tmp_path / "out") == before


def test_a_bad_record_leaves_nothing_and_is_named(source, tmp_path, capsys):
    with (source / "1.jsonl").open("ab") as file:
        file.write(b"\xff\n")
    assert run(source, tmp_path / "out") == ExitCode.CONFIG
    error = capsys.readouterr().err
    assert f"{source}/1.jsonl line 23: is not UTF-8" in error
    assert "--on-bad skip leaves such records out" in error
    assert not (tmp_path / "out").exists()
    assert run(source, tmp_path / "out", "--on-bad", "skip") == 0
    found = manifest.read(tmp_path / "out")
    assert found.documents["bad"] == 1
    assert found.bad[0].where == f"{source}/1.jsonl line 23"


def test_nothing_left_is_said(source, tmp_path, capsys):
    assert run(source, tmp_path / "out", "--quality", "gopher") == ExitCode.CONFIG
    assert "nothing is left to learn: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--tokenizer", "bpe:5"), "write bpe:SIZE with 257 to 262144"),
        (("--tokenizer", "/nowhere"), "--tokenizer: /nowhere can't be read"),
        (("--tokenizer", __file__), "is no tokenizer.json"),
        (("--processes", "0"), "--processes: 0 is fewer than one"),
        (("--config", "/nowhere"), "--config: /nowhere: No such file"),
        (("--shard-tokens", "3"), "shardTokens: "),
        (("--end-token", "<none>"), "the tokenizer has no token <none>"),
    ],
)
def test_wrong_options_are_named(source, tmp_path, capsys, options, what):
    assert run(source, tmp_path / "out", *options) == ExitCode.CONFIG
    assert what in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_of_settings_and_options_over_it(source, tmp_path):
    config = tmp_path / "prepare.yaml"
    config.write_text(f"inputs: [{source}]\nheldOut: 0.3\ndedup: {{threshold: 0.9}}\n")
    arguments = ["--config", str(config), "--out", str(tmp_path / "out"), "--held-out", "0.1"]
    assert command.main([*arguments, "--dedup", "exact", "--processes", "1"]) == 0
    settings = manifest.read(tmp_path / "out").settings
    assert settings["heldOut"] == 0.1
    assert settings["dedup"] == {
        "exact": True,
        "near": False,
        "threshold": 0.9,
        "permutations": 128,
        "shingle": 5,
    }


def test_what_a_stage_has_done_is_not_done_again(source, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("drakkar_workers.data.prepare.pipeline.pack", fail)
        with pytest.raises(KeyboardInterrupt):
            run(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(stages, "read_file", fail)
    assert run(source, tmp_path / "out") == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [".out.preparing.lock", "in", "out"]


def test_two_do_not_prepare_one_result(source, tmp_path, capsys):
    with work.working_folder(tmp_path / "out", "other"):
        assert run(source, tmp_path / "out") == ExitCode.CONFIG
    assert "another process prepares" in capsys.readouterr().err
