"""``drakkar data prepare``, and in a pod ``python -m drakkar_workers.data prepare``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from drakkar.exitcodes import ExitCode
from drakkar_workers.data.prepare.errors import BadRecord
from drakkar_workers.data.prepare.manifest import Manifest
from drakkar_workers.data.prepare.pipeline import prepare
from drakkar_workers.data.prepare.settings import PrepareSettings
from drakkar_workers.errors import ConfigError

DEDUP = {"none": (False, False), "exact": (True, False), "near": (True, True)}


def parser() -> argparse.ArgumentParser:
    """All options; those that are not given leave what --config or the defaults say."""
    found = argparse.ArgumentParser(
        prog="drakkar data prepare",
        description="Read documents, clean and deduplicate them, and pack their tokens into shards. "
        "Run it again after it was stopped: it goes on.",
        argument_default=argparse.SUPPRESS,
    )
    add = found.add_argument
    add("inputs", nargs="*", metavar="INPUT", help="files, folders, globs or URLs (s3://...)")
    add("--out", type=Path, required=True, help="folder that is made")
    add("--config", type=Path, help="YAML with these settings in camelCase, and finer ones")
    add("--tokenizer", help="bytes (default), bpe:SIZE to train one, or a tokenizer.json")
    add("--end-token", help="text of the token that ends a document")
    add("--text-field", help="field or column of the text (default: text)")
    add("--licence-field", help="field or column of a document's licence")
    add("--licence", help="licence of documents that name none")
    add("--text-documents", choices=("file", "paragraph", "line"), help="in plain text files")
    add("--quality", choices=("none", "gopher"), help="rules that documents must keep to")
    add("--dedup", choices=tuple(DEDUP), help="which duplicates go (default: near)")
    add(
        "--mask-pii", action="store_true", help="mask mail addresses, cards, IPs, telephone numbers"
    )
    add("--on-bad", choices=("fail", "skip"), help="records that can't be read (default: fail)")
    add("--held-out", type=float, help="share of documents for evaluation (default: 0.01)")
    add("--shard-tokens", type=int, help="tokens of a shard at most")
    add("--processes", type=int, help="default: one per processor")
    return found


def main(argv: Sequence[str]) -> int:
    """Prepare data as told; an ``ExitCode``."""
    given = vars(parser().parse_args(list(argv)))
    out = Path(os.path.abspath(given.pop("out")))  # noqa: PTH100 (resolve would follow links)
    processes = given.pop("processes", len(os.sched_getaffinity(0)))
    try:
        if processes < 1:
            raise ConfigError(f"--processes: {processes} is fewer than one")
        manifest = prepare(_settings(given), out, processes)
    except BadRecord as error:
        print(f"error: {error}; --on-bad skip leaves such records out", file=sys.stderr)
        return ExitCode.CONFIG
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.CONFIG
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.CRASHED
    print(summary(out, manifest))
    return ExitCode.COMPLETE


def summary(out: Path, manifest: Manifest) -> str:
    """The result in a few lines."""
    counts = manifest.documents
    dropped = [f"{counts[name]:,} {name.partition('.')[2]}" for name in counts if "." in name]
    lines = [
        f"{out}: {manifest.tokens('train'):,} tokens to train, "
        f"{manifest.tokens('held-out'):,} held out, vocabulary {manifest.vocab_size:,}",
        f"documents: {counts.get('read', 0):,} read, {counts['kept']:,} kept, "
        f"{counts.get('bad', 0):,} bad; dropped: {', '.join(dropped) or 'none'}",
    ]
    if manifest.masked:
        lines.append("masked: " + ", ".join(f"{n:,} {kind}" for kind, n in manifest.masked.items()))
    lines += [f"bad: {one.where}: {one.what}" for one in manifest.bad[:5]]
    return "\n".join(lines)


def _settings(given: dict[str, Any]) -> PrepareSettings:
    settings: dict[str, Any] = {}
    path = given.pop("config", None)
    if path is not None:
        settings = _yaml(path)
    dedup = given.pop("dedup", None)
    if not given.get("inputs"):
        given.pop("inputs", None)
    names = PrepareSettings.model_fields
    settings |= {str(names[key].alias or key): value for key, value in given.items()}
    if dedup is not None:
        exact, near = DEDUP[dedup]
        settings["dedup"] = {**settings.get("dedup", {}), "exact": exact, "near": near}
    try:
        return PrepareSettings.model_validate(settings)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "settings"
        raise ConfigError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None


def _yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"--config: {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config: {path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"--config: {path}: holds a {type(content).__name__}, expected a mapping")
    return content
