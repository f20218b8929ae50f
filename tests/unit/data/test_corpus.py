import json
import math
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from drakkar.v1alpha1.recipes import DataConfig
from drakkar_workers.data import corpus as corpora
from drakkar_workers.data.corpus import open_corpus, unigram_loss
from drakkar_workers.errors import ConfigError

LINES = "".join(f"line {i} of a text that is long enough\n" for i in range(400))


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(LINES)
    return path


def test_the_tail_is_held_out_from_a_line_start(text, tmp_path):
    corpus = open_corpus(DataConfig(source=str(text), held_out=0.1), 16, tmp_path / "cache")
    head, tail = bytes(corpus.train.tolist()).decode(), bytes(corpus.held_out.tolist()).decode()
    assert head + tail == LINES
    assert tail.startswith("line ") and head.endswith("\n")
    assert len(tail) / len(LINES) == pytest.approx(0.1, abs=0.01)
    assert corpus.train.dtype == np.uint16


def test_bpe_corpus_and_its_tokenizer_fit(text, tmp_path):
    config = DataConfig(source=str(text), tokenizer="bpe", vocab_size=300)
    corpus = open_corpus(config, 16, tmp_path / "cache")
    tokenizer = corpora.tokenizers.load(corpus.tokenizer_path)
    assert LINES.startswith(tokenizer.decode(np.asarray(corpus.train[:50]).tolist()))
    assert corpus.vocab_size == tokenizer.get_vocab_size() <= 300


def test_it_is_prepared_once(text, tmp_path, monkeypatch):
    first = open_corpus(DataConfig(source=str(text)), 16, tmp_path / "cache")
    monkeypatch.setattr(corpora, "_prepare", lambda *_: pytest.fail("prepared again"))
    second = open_corpus(DataConfig(source=str(text)), 16, tmp_path / "cache")
    assert first.digest == second.digest
    assert first.folder == second.folder


def test_another_text_or_setting_is_another_corpus(text, tmp_path):
    cache = tmp_path / "cache"
    first = open_corpus(DataConfig(source=str(text)), 16, cache)
    other = open_corpus(DataConfig(source=str(text), held_out=0.2), 16, cache)
    text.write_text(LINES.replace("long", "wide"))
    changed = open_corpus(DataConfig(source=str(text)), 16, cache)
    assert len({first.digest, other.digest, changed.digest}) == 3


def _open(arguments):
    path, cache = arguments
    return open_corpus(DataConfig(source=path), 16, cache).digest


def test_ranks_that_start_together_prepare_it_once(text, tmp_path):
    cache = tmp_path / "cache"
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        digests = set(pool.map(_open, [(str(text), cache)] * 8))
    assert len(digests) == 1
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1


def test_a_died_preparation_leaves_nothing_that_counts(text, tmp_path, monkeypatch):
    cache = tmp_path / "cache"

    def fail(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(corpora.json, "dumps", fail)
        with pytest.raises(KeyboardInterrupt):
            open_corpus(DataConfig(source=str(text)), 16, cache)
    assert [path for path in cache.iterdir() if path.is_dir()] == []
    open_corpus(DataConfig(source=str(text)), 16, cache)


def test_unigram_loss_of_a_uniform_text_is_the_logarithm_of_its_symbols():
    train = np.tile(np.arange(16, dtype=np.uint16), 10_000)
    assert unigram_loss(train, train, 16) == pytest.approx(math.log(16), abs=1e-6)
    assert unigram_loss(train, np.array([0], np.uint16), 17) > math.log(16)


def test_unigram_loss_is_the_entropy_of_the_text():
    train = np.repeat(np.array([0, 1], np.uint16), [30_000, 10_000])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert unigram_loss(train, train, 2) == pytest.approx(entropy, abs=1e-4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "is not UTF-8 text (byte 0"),
        (b"", "the training part of"),
        (b"short\n", "tokens; sequenceLength 16 needs more than 32"),
    ],
)
def test_an_unfit_text_is_a_config_error(content, message, tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        open_corpus(DataConfig(source=str(path)), 16, tmp_path / "cache")
    assert message in str(error.value)


def test_a_cache_that_cannot_be_made_is_a_config_error(text, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=f"uid {os.getuid()}.*DRAKKAR_CACHE"):
        open_corpus(DataConfig(source=str(text)), 16, tmp_path / "file" / "cache")


def test_a_cut_cache_file_is_found(text, tmp_path):
    corpus = open_corpus(DataConfig(source=str(text)), 16, tmp_path / "cache")
    with (corpus.folder / "train.bin").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(ConfigError, match=r"train\.bin has 100 bytes, expected .*; delete"):
        open_corpus(DataConfig(source=str(text)), 16, tmp_path / "cache")


def test_the_manifest_tells_what_the_files_hold(text, tmp_path):
    corpus = open_corpus(DataConfig(source=str(text)), 16, tmp_path / "cache")
    manifest = json.loads((corpus.folder / "manifest.json").read_text())
    assert manifest["tokens"] == {"train": len(corpus.train), "held_out": len(corpus.held_out)}
    assert manifest["unigram_loss"] == corpus.unigram_loss
    assert manifest["tokenizer"] == "bytes" and manifest["vocab_size"] == 257
