"""The small pure parts: termination message, settings, timing, environment, resources, causes."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drakkar.protocol import Failure, GangConfig, Member, Report
from drakkar.v1alpha1.trainingjob import CheckpointRecord, Progress, Restart
from drakkar_workers.agent import causes, resources, settings, termination
from drakkar_workers.agent.environment import trainer_environments
from drakkar_workers.agent.timing import Timing
from drakkar_workers.agent.warm import script_arguments

WHEN = datetime(2026, 11, 23, tzinfo=UTC)
GANG = GangConfig(
    job="j", namespace="n", uid="u", replicas=2, processes_per_replica=2, coordinator="c"
)
ENVIRON = {
    "DRAKKAR_GANG": GANG.model_dump_json(by_alias=True),
    "DRAKKAR_REPLICA_INDEX": "1",
    "DRAKKAR_POD_NAME": "j-1",
    "DRAKKAR_POD_UID": "p",
    "DRAKKAR_NODE_NAME": "w",
}


@given(
    members=st.integers(0, 4096),
    restarts=st.integers(0, 50),
    checkpoints=st.integers(0, 100),
    letters=st.sampled_from(["a", "✨", "\x00", '"']),
    sample=st.integers(0, 2048),
)
def test_last_report_always_fits(members, restarts, checkpoints, letters, sample) -> None:
    report = Report(
        uid="u" * 36,
        pod_uid="p" * 36,
        version=1,
        epoch=1,
        state="complete",
        members=[Member(replica=i, pod=f"j-{i}", node="w", state="done") for i in range(members)],
        progress=Progress(step=200, total_steps=200, loss=1.5, sample=letters * sample),
        restarts=[
            Restart(id=f"p-{i}", time=WHEN, scope="process", reason="R", message=letters * 1024)
            for i in range(restarts)
        ],
        checkpoints=[
            CheckpointRecord(step=i, path="x" * 512, time=WHEN) for i in range(checkpoints)
        ],
        time=WHEN,
    )
    text = termination.report_message(report)
    assert len(text.encode()) < termination.LIMIT_BYTES
    told = Report.model_validate_json(text)
    assert told.state == "complete"
    failure = Failure(reason="Terminated", message="not saved " * 90, replica=0, retryable=True)
    both = termination.report_message(report, failure)
    assert len(both.encode()) < termination.LIMIT_BYTES
    assert Report.model_validate_json(both).state == "complete"
    assert json.loads(both)["reason"] == "Terminated"
    assert told.progress is not None and told.progress.step == 200


@given(st.text(max_size=1024))
def test_failure_always_fits(message: str) -> None:
    failure = Failure(reason="R", message=message, retryable=False)
    text = termination.failure_message(failure)
    assert len(text.encode("utf-8", "surrogatepass")) < termination.LIMIT_BYTES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"DRAKKAR_GANG": ""}, "DRAKKAR_GANG is not set"),
        ({"DRAKKAR_GANG": "{"}, "DRAKKAR_GANG: the value: Invalid JSON"),
        ({"DRAKKAR_GANG": "{}"}, "DRAKKAR_GANG: job: Field required"),
        ({"DRAKKAR_REPLICA_INDEX": "2"}, "DRAKKAR_REPLICA_INDEX: 2 is not of this gang"),
        ({"DRAKKAR_REPLICA_INDEX": "x"}, "replica_index"),
        ({"DRAKKAR_POD_UID": None}, "DRAKKAR_POD_UID is not set"),
        ({"DRAKKAR_GRACE_SECONDS": "soon"}, "DRAKKAR_GRACE_SECONDS: 'soon' is not a number"),
        ({"DRAKKAR_GRACE_SECONDS": "-1"}, "DRAKKAR_GRACE_SECONDS: -1 must be from 0"),
    ],
)
def test_settings_say_what_is_wrong(change, message: str) -> None:
    environ = {k: v for k, v in (ENVIRON | change).items() if v is not None}
    with pytest.raises(ValueError) as caught:
        settings.load(environ, ["true"])
    assert message.lower() in str(caught.value).lower()


def test_settings_need_something_to_run() -> None:
    with pytest.raises(ValueError, match="nothing to run"):
        settings.load(ENVIRON, [])
    assert settings.load(ENVIRON, ["true"]).command == ("true",)


@pytest.mark.parametrize("replicas", [1, 64, 1000, 4096])
def test_large_gangs_do_not_drown_their_coordinator(replicas: int) -> None:
    timing = Timing.from_environ({}, replicas)
    assert replicas / timing.heartbeat <= 1100
    assert timing.peer_timeout >= 4 * timing.heartbeat


def test_trainers_get_torchruns_variables() -> None:
    environ = {"DRAKKAR_DEVICES": "a,b,c,d"}
    found = trainer_environments(GANG, 1, 103, "10.0.0.1", "@s", environ)
    assert sorted(found) == [2, 3]
    assert found[3] == {
        "RANK": "3",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "1",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": str(GANG.rendezvous_port + 3),
        "DRAKKAR_EPOCH": "103",
        "DRAKKAR_AGENT_SOCKET": "@s",
        "DRAKKAR_DEVICES": "c,d",
    }


@given(st.integers(0, 20), st.integers(1, 20))
def test_devices_are_dealt_out_once(devices: int, processes: int) -> None:
    listed = ",".join(f"d{i}" for i in range(devices))
    parts = [resources.device_slice(listed, i, processes) for i in range(processes)]
    if devices >= processes:
        assert ",".join(parts) == listed
        assert all(parts)
    elif devices:
        assert all(part in listed.split(",") for part in parts)


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_cpu_quota(tmp_path: Path, monkeypatch, files: dict[str, str], limit) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(8)))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert resources.cpu_limit(tmp_path) == (8.0 if limit is None else limit)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([], "ranks none"),
        ([3], "rank 3"),
        ([2, 1], "ranks 1 and 2"),
        ([0, 1, 2], "ranks 0, 1 and 2"),
        (range(12), "ranks 0, 1, 2 and 9 more"),
    ],
)
def test_names(numbers, text: str) -> None:
    assert causes.names("rank", list(numbers)) == text


@pytest.mark.parametrize(
    ("argv", "arguments"),
    [
        ([sys.executable, "train.py", "--lr", "1"], ["train.py", "--lr", "1"]),
        ([sys.executable, "-u", "train.py"], ["train.py"]),
        ([sys.executable, "-m", "pkg.train", "x"], ["-m", "pkg.train", "x"]),
        ([sys.executable, "-m"], None),
        ([sys.executable, "-c", "print()"], None),
        ([sys.executable], None),
        (["/bin/sh", "train.sh"], None),
        (["no-such-program", "train.py"], None),
    ],
)
def test_which_commands_run_warm(argv, arguments) -> None:
    assert script_arguments(argv, {"DRAKKAR_WARM": "1"}) == arguments
    assert script_arguments(argv, {}) is None


def test_reports_are_json_of_the_wire() -> None:
    failure = Failure(reason="R", message="m", replica=1, retryable=True)
    assert json.loads(termination.failure_message(failure)) == {
        "reason": "R",
        "message": "m",
        "replica": 1,
        "retryable": True,
    }
