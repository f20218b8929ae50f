"""Files of all kinds, and what is said of bad ones."""

import bz2
import gzip
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drakkar_workers.data.prepare.errors import BadRecord, DataError
from drakkar_workers.data.prepare.inputs import documents, find
from drakkar_workers.data.prepare.settings import PrepareSettings

LINES = [{"text": f"text {i} é", "licence": "cc0"} for i in range(3)]
JSONL = "".join(json.dumps(line) + "\n" for line in LINES).encode()


def read(path, **settings):
    given = PrepareSettings(inputs=(str(path),), **settings)
    return [item for source in find(given) for item in documents(source, given)]


def bad(path, **settings):
    return [str(item) for item in read(path, **settings) if isinstance(item, BadRecord)]


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.jsonl", bytes),
        ("a.ndjson", bytes),
        ("a.jsonl.gz", gzip.compress),
        ("a.jsonl.bz2", bz2.compress),
        ("a.jsonl.zst", lambda data: pa.Codec("zstd").compress(data, asbytes=True)),
    ],
)
def test_lines_are_read_whatever_packs_them(tmp_path, name, pack):
    (tmp_path / name).write_bytes(pack(JSONL))
    found = read(tmp_path, licence_field="licence")
    assert [one.text for one in found] == [line["text"] for line in LINES]
    assert {one.licence for one in found} == {"cc0"}
    assert found[1].where == f"{tmp_path / name} line 2"


def test_parquet_is_read_by_column(tmp_path):
    pq.write_table(pa.table({"body": ["a", None, "c"], "n": [1, 2, 3]}), tmp_path / "a.parquet")
    found = read(tmp_path, text_field="body", licence="mit")
    assert [one.text for one in (found[0], found[2])] == ["a", "c"]
    assert found[0].licence == "mit"
    assert str(found[1]) == f"{tmp_path}/a.parquet row 2: 'body' is NoneType, expected text"


@pytest.mark.parametrize(
    ("documents", "texts"),
    [("file", ["a\nb\n\nc\n"]), ("paragraph", ["a\nb\n", "c\n"]), ("line", ["a\n", "b\n", "c\n"])],
)
def test_plain_text_is_cut_as_asked(tmp_path, documents, texts):
    (tmp_path / "a.txt").write_text("a\nb\n\nc\n")
    found = [one.text for one in read(tmp_path, text_documents=documents)]
    assert [text for text in found if text.strip()] == texts


def test_files_are_in_the_order_of_their_names_each_once(tmp_path):
    for name in ("b.jsonl", "a.jsonl"):
        (tmp_path / name).write_bytes(JSONL)
    (tmp_path / "notes.csv").write_text("x")
    given = PrepareSettings(inputs=(str(tmp_path / "*.jsonl"), str(tmp_path)))
    assert [one.path for one in find(given)] == [f"{tmp_path}/{n}.jsonl" for n in "ab"]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"\xff\xfe", "is not UTF-8 (byte 0: invalid start byte)"),
        (b"{", "is not JSON"),
        (b"[1]", "is a list, expected an object"),
        (b'{"body": "a"}', "has no field 'text'; its fields: body (see --text-field)"),
        (b'{"text": 5}', "'text' is int, expected text"),
        (b'{"text": null}', "'text' is NoneType, expected text"),
        (b'{"text": "\\ud800"}', "holds half a surrogate pair at character 0"),
        (b'{"text": "' + b"x" * 2000 + b'"}', "has more than 1024 bytes (maxRecordBytes)"),
        (b'{"text":' + b"[" * 1000, "is not JSON"),
    ],
)
def test_a_bad_line_is_named_and_those_after_it_are_read(tmp_path, line, what):
    (tmp_path / "a.jsonl").write_bytes(JSONL + line + b"\n" + JSONL)
    found = bad(tmp_path, max_record_bytes=1024)
    assert len(found) == 1
    assert found[0].startswith(f"{tmp_path}/a.jsonl line 4: ")
    assert what in found[0]
    assert len(read(tmp_path, max_record_bytes=1024)) == 7


@pytest.mark.parametrize("documents", ["file", "paragraph", "line"])
def test_a_huge_text_is_named_and_what_follows_is_read(tmp_path, documents):
    (tmp_path / "a.txt").write_text("ok\n\n" + "x" * 5000 + "\n\nafter\n")
    found = read(tmp_path, text_documents=documents, max_record_bytes=1024)
    huge = [str(item) for item in found if isinstance(item, BadRecord)]
    assert len(huge) == 1 and "begins a document of over 1024 bytes" in huge[0]
    texts = [item.text.strip() for item in found if not isinstance(item, BadRecord)]
    assert [text for text in texts if text] == ([] if documents == "file" else ["ok", "after"])


@pytest.mark.parametrize("suffix", ["gz", "bz2", "zst"])
def test_a_file_that_is_cut_off_is_named(tmp_path, suffix):
    data = random.Random(1).randbytes(50_000).hex().encode()
    lines = b"".join(b'{"text": "%s"}\n' % data[i : i + 100] for i in range(0, 100_000, 100))
    packed = {
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "zst": lambda raw: pa.Codec("zstd").compress(raw, asbytes=True),
    }[suffix](lines)
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match=rf"a\.jsonl\.{suffix}: .*; it is cut off: copy it again"):
        read(tmp_path)


def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path):
    for name in ("a.jsonl.gz", "b.parquet", "c.jsonl.zst"):
        path = tmp_path / name
        path.write_bytes(JSONL * 10)
        with pytest.raises(DataError, match=name):
            read(path)


def test_a_parquet_file_that_is_cut_off_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a" * 1000] * 100}), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"a\.parquet: "):
        read(path)


def test_a_column_that_is_not_there_is_named(tmp_path):
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="has no column 'text'; its columns: body"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("nowhere.jsonl", "no file there"),
        ("a.csv", "a name that says no format; known: .*jsonl"),
        ("gopher://x/a.jsonl", "gopher"),
    ],
)
def test_an_input_that_can_not_be_used_is_named(tmp_path, name, what):
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(DataError, match=what):
        read(name if "://" in name else tmp_path / name)


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "a.jsonl").touch()
    assert bad(tmp_path) == [f"{tmp_path}/a.jsonl: is empty"]
