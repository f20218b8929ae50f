"""Jobs that must wait, and gangs that compete."""

import time

import pytest

from drakkar.constants import LABEL_JOB
from support.lab import PLAIN, Lab, sleeper

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

ROUNDS = 20


def test_a_job_that_cannot_fit_waits_with_a_reason_and_starts_when_room_appears(lab: Lab) -> None:
    need = min(lab.free_cpu().values()) - 100
    lab.submit("first", replicas=4, template=sleeper(600, cpu=f"{need}m"), **PLAIN)
    lab.phase("first", "Running")
    lab.submit("second", replicas=4, template=sleeper(1, cpu=f"{need}m"), **PLAIN)
    waiting = lab.until(
        lambda: lab.status("second").get("pendingReason"), 30, "the second has a reason"
    )
    assert "cpu" in waiting
    assert "4 replicas" in waiting
    time.sleep(3)
    assert lab.pods("second") == []
    assert lab.status("second")["phase"] == "Pending"
    lab.delete("first")
    status = lab.phase("second", "Complete", seconds=60)
    assert "pendingReason" not in status


def test_two_gangs_that_fit_one_at_a_time_never_start_halves(lab: Lab) -> None:
    """At no time has a gang some of its pods running while the other has some too."""
    need = min(lab.free_cpu().values()) - 100
    for turn in range(ROUNDS):
        names = [f"left-{turn}", f"right-{turn}"]
        for name in names:
            lab.submit(name, replicas=4, template=sleeper(0.5, cpu=f"{need}m"), **PLAIN)
        done: set[str] = set()
        deadline = time.monotonic() + 90
        while len(done) < 2:
            assert time.monotonic() < deadline, f"round {turn} is stuck\n{lab.describe()}"
            # One list is one moment; two would see a gang before and the other after a change.
            live = [pod for pod in lab.api.list(lab.pods_path) if is_live(pod)]
            holders = {pod["metadata"]["labels"][LABEL_JOB] for pod in live}
            assert len(holders) <= 1, f"two gangs hold nodes at once\n{lab.describe()}"
            done = {name for name in names if lab.status(name).get("phase") == "Complete"}
            time.sleep(0.1)
        for name in names:
            assert lab.status(name).get("restarts", []) == []
            lab.delete(name)


def is_live(pod: dict[str, object]) -> bool:
    """It holds room on its node."""
    status = pod["status"]
    assert isinstance(status, dict)
    return status.get("phase") in ("Pending", "Running")
