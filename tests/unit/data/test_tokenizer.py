import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drakkar_workers.data import tokenizer as tokenizers

TEXT = "In the beginning God created the heaven and the earth.\nAnd the earth was void;\n" * 40
BYTES = tokenizers.bytes_tokenizer()
BPE = tokenizers.train_bpe(TEXT, 300)


@settings(deadline=None)
@given(st.text(max_size=200))
def test_ids_of_the_bytes_tokenizer_are_bytes(text):
    ids = BYTES.encode(text).ids
    assert bytes(ids) == text.encode()
    assert tokenizers.encode(BYTES, "bytes", text).tolist() == ids
    assert BYTES.decode(ids) == text


@settings(deadline=None)
@given(st.text(max_size=200))
def test_bpe_gives_any_text_back(text):
    assert BPE.decode(tokenizers.encode(BPE, "bpe", text).tolist()) == text


def test_bpe_learns_its_text():
    assert BPE.get_vocab_size() <= 300
    assert len(tokenizers.encode(BPE, "bpe", TEXT)) < 0.5 * len(TEXT)


@pytest.mark.parametrize("tokenizer", [BYTES, BPE], ids=["bytes", "bpe"])
def test_the_last_id_ends_a_text(tokenizer):
    assert tokenizer.token_to_id(tokenizers.END_OF_TEXT) == tokenizer.get_vocab_size() - 1


def test_cutting_a_long_text_changes_nothing(monkeypatch):
    whole = tokenizers.encode(BPE, "bpe", TEXT)
    monkeypatch.setattr(tokenizers, "ENCODE_CHUNK", 100)
    assert np.array_equal(tokenizers.encode(BPE, "bpe", TEXT), whole)


def test_training_is_the_same_every_time():
    """Every node trains its own: they must agree."""
    assert tokenizers.train_bpe(TEXT, 300).to_str() == BPE.to_str()
