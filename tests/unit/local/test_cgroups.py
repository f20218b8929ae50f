"""Groups for the nodes, while others clean up."""

import random
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from drakkar.local import cgroups


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree with the hierarchies of version 1."""
    for name in ("cpu", "systemd"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path)
    return tmp_path


def test_groups_are_made_while_another_removes_empty_ones(mount: Path) -> None:
    ended = threading.Event()

    def clean() -> None:
        while not ended.is_set():
            for name in ("cpu", "systemd"):
                with suppress(OSError):
                    (mount / name / cgroups.ROOT).rmdir()
            time.sleep(random.uniform(0, 1e-4))

    cleaner = threading.Thread(target=clean)
    cleaner.start()
    try:
        for turn in range(100):
            path = cgroups.cgroup_path(f"c{turn}", "node-1")
            cgroups.create(path)
            assert (mount / "cpu" / path.strip("/")).is_dir()
            assert (mount / "systemd" / path.strip("/")).is_dir()
            cgroups.remove(cgroups.cgroup_path(f"c{turn}"))
    finally:
        ended.set()
        cleaner.join()
    assert not any((mount / "cpu").iterdir())


def test_a_hierarchy_that_can_not_be_written_is_passed_over(mount: Path) -> None:
    (mount / "cpu" / cgroups.ROOT).write_text("in the way")
    cgroups.create("/drakkar/c/n")
    assert (mount / "systemd/drakkar/c/n").is_dir()
