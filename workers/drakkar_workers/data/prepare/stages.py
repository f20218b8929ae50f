"""What is done to one file of the input, in a process of its own.

Each stage leaves one file, whole or not at all; a stage whose file is there is not done again.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tokenizers import Tokenizer

from drakkar_workers.data.prepare import clean
from drakkar_workers.data.prepare.dedup import KEY_BYTES, Signer, key_of
from drakkar_workers.data.prepare.errors import BadRecord
from drakkar_workers.data.prepare.inputs import Document, Input, documents
from drakkar_workers.data.prepare.settings import PrepareSettings
from drakkar_workers.data.prepare.work import written

ROWS = 512
"""Documents that are in memory at once."""
BAD_NAMED = 100
"""Bad records that are named; all are counted."""
STATISTICS = b"drakkar"


def read_file(source: Input, settings: PrepareSettings, target: Path) -> None:
    """Clean the documents of a file into a parquet file, with what was left out in its metadata.

    Raises DataError if the file is cut off, or has a bad record and those are not to be skipped.
    """
    counts: Counter[str] = Counter()
    masked: Counter[str] = Counter()
    bad: list[dict[str, str]] = []
    sha = hashlib.sha256()
    signer = Signer(settings.dedup) if settings.dedup.near else None
    fields = [
        ("text", pa.large_string()),
        ("licence", pa.string()),
        ("key", pa.binary(KEY_BYTES)),
    ]
    if signer:
        fields.append(("signature", pa.binary(4 * settings.dedup.permutations)))
    schema = pa.schema(fields)
    rows: list[dict[str, Any]] = []
    with written(target) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(rows, schema))
            rows.clear()

        for found in documents(source, settings):
            counts["read"] += 1
            if isinstance(found, BadRecord):
                if settings.on_bad == "fail":
                    raise found
                counts["bad"] += 1
                if len(bad) < BAD_NAMED:
                    bad.append({"where": found.where, "what": found.what})
                continue
            row, rule = _cleaned(found, settings, masked)
            if row is None:
                counts[f"dropped.{rule}"] += 1
                continue
            if signer:
                row["signature"] = signer.sign(row["text"]).tobytes()
            sha.update(row["key"])
            rows.append(row)
            if len(rows) == ROWS:
                flush()
        flush()
        statistics = {"counts": counts, "masked": masked, "bad": bad, "sha256": sha.hexdigest()}
        writer.add_key_value_metadata({STATISTICS: json.dumps(statistics).encode()})


def statistics_of(cleaned: Path) -> dict[str, Any]:
    """What ``read_file`` counted."""
    metadata = pq.read_metadata(cleaned).metadata
    found: dict[str, Any] = json.loads(metadata[STATISTICS])
    return found


def _cleaned(
    found: Document, settings: PrepareSettings, masked: Counter[str]
) -> tuple[dict[str, Any] | None, str]:
    text = clean.normalise(found.text)
    if not text:
        return None, "empty"
    if settings.quality == "gopher" and (rule := clean.gopher(text)):
        return None, rule
    if settings.mask_pii:
        text, counts = clean.mask_pii(text)
        masked.update(counts)
    return {"text": text, "licence": found.licence, "key": key_of(text)}, ""


def tokenise_file(
    cleaned: Path, kept: NDArray[np.bool_], tokenizer_path: Path, end_id: int, target: Path
) -> None:
    """Token ids of the kept documents of a file, each with the end token after it: an npz of
    ``ids``, ``lengths`` and ``keys``."""
    tokenizer = load_tokenizer(tokenizer_path)
    parts: list[NDArray[np.uint32]] = []
    lengths: list[int] = []
    keys: list[bytes] = []
    row = 0
    with pq.ParquetFile(cleaned) as file:
        for batch in file.iter_batches(ROWS, columns=["text", "key"]):
            table = pa.Table.from_batches([batch]).filter(
                pa.array(kept[row : row + batch.num_rows])
            )
            row += batch.num_rows
            texts = table.column("text").to_pylist()
            for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
                parts.append(np.asarray([*encoding.ids, end_id], np.uint32))
                lengths.append(len(parts[-1]))
            keys += table.column("key").to_pylist()
    with written(target) as part, part.open("wb") as out:
        np.savez(
            out,
            ids=np.concatenate(parts) if parts else np.empty(0, np.uint32),
            lengths=np.asarray(lengths, np.int64),
            keys=np.frombuffer(b"".join(keys), np.dtype((np.void, KEY_BYTES))),
        )


def load_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer to which the names of special tokens in a text are text."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
