"""Packed weights that engines share by a file."""

import mmap
import threading
from pathlib import Path

import pytest
import torch

from drakkar_workers.hf.config import read_config
from drakkar_workers.serve.model.decoder import load
from drakkar_workers.serve.model.native.backend import NativeBackend
from drakkar_workers.serve.model.packed import DATA, INDEX, key
from support.tiny_models import save_tiny


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    save_tiny("qwen2", folder)  # It has biases.
    return folder


def read(model, packed, dtype=torch.bfloat16, **options):
    backend = NativeBackend(dtype, 1)
    return load(
        model, read_config(model), backend, blocks=8, max_length=64, packed=packed, **options
    )


def weights(decoder):
    found = [decoder._head]
    for layer in decoder._layers:
        found += [layer.qkv, layer.o, layer.gate_up, layer.down]
    return [
        tensor
        for one in found
        for tensor in (one.weight, one.scales, one.bias)
        if tensor is not None
    ]


def mapped_bytes(path):
    """How much of this file the process holds in memory of its own, and in all, in bytes."""
    private = resident = 0
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()[0]
        if "-" in head and not head.endswith(":"):
            inside = line.endswith(str(path))
        elif inside and head == "Anonymous:":
            private += int(line.split()[1]) * 1024
        elif inside and head == "Rss:":
            resident += int(line.split()[1]) * 1024
    return private, resident


@pytest.mark.parametrize("options", [{}, {"quantization": "int8"}, {"quantization": "int4"}])
def test_what_is_shared_is_the_same_to_the_bit(model, tmp_path, options):
    alone = weights(read(model, None, **options))
    for _ in range(2):
        shared = weights(read(model, tmp_path / "packed", **options))
        assert len(shared) == len(alone)
        for one, other in zip(alone, shared, strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)


def test_all_engines_hold_the_same_pages(model, tmp_path):
    first = read(model, tmp_path / "packed")
    second = read(model, tmp_path / "packed")
    total = sum(float(one.float().sum()) for one in weights(first) + weights(second))
    assert total == total, "all pages are read"
    (data,) = (tmp_path / "packed").glob(f"*/{DATA}")
    private, resident = mapped_bytes(data)
    assert private == 0
    assert resident >= data.stat().st_size
    for one in weights(first):
        assert one.data_ptr() % mmap.PAGESIZE == 0


def test_a_model_that_has_changed_is_packed_anew(model, tmp_path):
    before = weights(read(model, tmp_path / "packed"))
    torch.manual_seed(5)
    save_tiny("llama", model)
    after = weights(read(model, tmp_path / "packed"))
    assert len(before) != len(after)
    assert len(list((tmp_path / "packed").glob(f"*/{INDEX}"))) == 2


def test_each_way_of_packing_has_its_own_file(model):
    backends = [NativeBackend(dtype, 1) for dtype in (torch.float32, torch.bfloat16)]
    names = {key(model, backends[0], "none"), key(model, backends[1], "none")}
    names |= {key(model, backends[1], kind) for kind in ("int8", "int4")}
    assert len(names) == 4


def test_many_that_start_at_once_pack_once(model, tmp_path, caplog):
    caplog.set_level("INFO")
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(weights(read(model, tmp_path / "packed"))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert caplog.text.count("packed weights are shared") == 1
    assert [path.name for path in (tmp_path / "packed").glob(".packing-*")] == []


def test_a_folder_that_cant_be_used_stops_nobody(model, tmp_path, caplog):
    taken = tmp_path / "packed"
    taken.write_text("a file")
    assert weights(read(model, taken))
    assert "kept in memory alone" in caplog.text


def test_a_full_disk_stops_nobody(model, tmp_path, caplog, monkeypatch):
    from drakkar_workers.serve.model import packed

    def full(self, made):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packed._Filling, "_write", full)
    assert weights(read(model, tmp_path / "packed"))
    assert "not shared" in caplog.text
    assert list((tmp_path / "packed").glob(f"*/{INDEX}")) == []
