import gzip
import struct
import subprocess

import pytest

from drakkar_workers.data import bible, fetch
from drakkar_workers.data.sources import SOURCES, Source, locate
from drakkar_workers.errors import ConfigError


def test_a_known_name_is_found_in_the_named_folder(tmp_path):
    (tmp_path / "bible-kjv.txt").write_text("In the beginning")
    assert locate("bible-kjv", {"DRAKKAR_DATA_DIR": str(tmp_path)}).read_text()[:6] == "In the"


def test_a_path_is_taken_as_it_is(tmp_path):
    (tmp_path / "my.txt").write_text("x")
    assert locate(str(tmp_path / "my.txt"), {}) == tmp_path / "my.txt"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("bibel", "data.source: 'bibel' is unknown; known: bible-kjv, or an absolute path"),
        ("../secret", "is unknown; known:"),
        ("/no/such/file", "data.source: no file /no/such/file"),
        ("bible-kjv", "run: python -m drakkar_workers.data fetch bible-kjv"),
    ],
)
def test_what_is_not_there_is_a_config_error(source, message, tmp_path):
    with pytest.raises(ConfigError) as error:
        locate(source, {"DRAKKAR_DATA_DIR": str(tmp_path)})
    assert message in str(error.value)


def test_verses_become_prose():
    text = "Holy Bible.\nGe1:1 In the beginning\nGe1:2 And the earth\nGe2:1 Thus\n1Co1:1 Paul, called\n"
    assert bible.verses(text) == "In the beginning\nAnd the earth\n\nThus\n\nPaul, called\n"


def test_a_data_file_is_unpacked(monkeypatch):
    windows = [b"Holy Bible.\nGe1:1 In the begin", b"ning\nGe1:2 And\n"]
    packed = [gzip.compress(window)[3:] for window in windows]
    monkeypatch.setattr(bible, "_LZW_MAGIC", b"\x1f\x8b\x08")
    start = bible._OFFSETS_AT + 4 * (len(packed) + 1)
    offsets = [start, start + len(packed[0]), start + len(packed[0]) + len(packed[1])]
    header = bible.MAGIC.ljust(bible._SIZES_AT, b"\0") + struct.pack(">II", 65536, len(packed))
    data = header + struct.pack(f">{len(offsets)}I", *offsets) + b"".join(packed)
    assert bible.extract(data) == "In the beginning\nAnd\n"


def test_another_file_is_refused():
    with pytest.raises(ValueError, match=r"bible\.data: starts with"):
        bible.extract(b"<html>not found</html>")


@pytest.fixture
def package(monkeypatch):
    """A source whose package is made here; counts downloads."""
    calls = []

    def run(command, folder):
        calls.append(command)
        if command[0] == "apt-get":
            (folder / "p.deb").write_bytes(b"")
        else:
            (folder / "tree").mkdir()
            (folder / "tree" / "data").write_bytes(b"raw")

    monkeypatch.setattr(fetch, "_run", run)
    monkeypatch.setattr(bible, "extract", lambda data: f"text of {data.decode()}")
    right = fetch._sha256(b"text of raw")
    monkeypatch.setitem(SOURCES, "test", Source("p", "1", "data", right, "a test"))
    return calls


def test_fetch_is_idempotent_and_repairs(package, tmp_path):
    path = fetch.fetch("test", tmp_path / "new")
    assert path.read_text() == "text of raw"
    done = len(package)
    assert fetch.fetch("test", tmp_path / "new") == path
    assert len(package) == done
    path.write_text("damaged")
    assert fetch.fetch("test", tmp_path / "new").read_text() == "text of raw"
    assert [entry.name for entry in path.parent.iterdir()] == ["test.txt"]


def test_a_text_with_another_checksum_is_not_kept(package, tmp_path, monkeypatch):
    monkeypatch.setattr(bible, "extract", lambda _: "something else")
    with pytest.raises(fetch.FetchError, match=r"test: text of p has sha256 .*, expected"):
        fetch.fetch("test", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_real_text_is_what_was_pinned():
    try:
        path = locate("bible-kjv")
    except ConfigError:
        pytest.skip("not fetched on this machine (make data)")
    assert fetch._sha256(path.read_bytes()) == SOURCES["bible-kjv"].sha256


def test_a_missing_client_says_what_to_do(tmp_path, monkeypatch):
    def missing(*_args, **_kwargs):
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", missing)
    with pytest.raises(fetch.FetchError, match=r"apt-get is not installed.*data\.source"):
        fetch.fetch("bible-kjv", tmp_path)
