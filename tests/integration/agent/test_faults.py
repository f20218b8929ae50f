"""What agents do when processes, pods and connections fail: with real processes."""

import os
import signal
import time
from pathlib import Path

import pytest


def steps_by_epoch(history: list[dict]) -> dict[str, list[int]]:
    steps: dict[str, list[int]] = {}
    for entry in history:
        steps.setdefault(entry["epoch"], []).append(entry["step"])
    return steps


def assert_resumed(gang, *, every: int = 10) -> None:
    """Each epoch goes on from the last checkpoint before it, and nothing is skipped."""
    reached = 0
    for steps in steps_by_epoch(gang.history()).values():
        assert steps == list(range(steps[0], steps[-1] + 1))
        assert reached - every <= steps[0] - 1 <= reached
        reached = steps[-1]
    assert reached == int(gang.env["FAKE_STEPS"])


def test_killed_trainer_is_restarted_in_place(make_gang):
    gang = make_gang(4)
    gang.start_all()
    gang.at_step(15)
    pids = dict(gang.agents)
    (victim,) = gang.trainers(2)
    os.kill(victim, signal.SIGKILL)
    killed = time.time()
    report = gang.until(lambda r: r.state == "complete")
    assert gang.exit_codes() == {0: 0, 1: 0, 2: 0, 3: 0}
    assert gang.agents == pids
    (restart,) = report.restarts
    assert (restart.scope, restart.reason, restart.replica) == ("process", "ProcessKilled", 2)
    assert "rank 2 on node node-2 was killed by SIGKILL" in restart.message
    assert restart.id == f"{gang.pod_uids[0]}-1"
    assert restart.counted
    assert_resumed(gang)
    next_step = min(e["time"] for e in gang.history() if e["epoch"] == "2")
    print(f"killed -> next step: {1000 * (next_step - killed):.0f} ms")
    assert gang.leftovers() == []


def test_killed_pod_is_waited_for(make_gang):
    gang = make_gang(3)
    gang.start_all()
    gang.at_step(15)
    gang.kill_pod(1)
    gang.until(lambda r: r.state == "recovering" and r.members[1].state == "missing")
    assert not gang.trainers(0) and not gang.trainers(2)
    gang.start(1)
    report = gang.until(lambda r: r.state == "complete")
    assert gang.exit_codes() == {0: 0, 1: 0, 2: 0}
    # The pod is the operator's to count: the peers' broken connections are no failures.
    assert report.restarts == []
    assert_resumed(gang)


def test_killed_agent_takes_its_trainers_with_it(make_gang):
    gang = make_gang(2)
    gang.start_all()
    gang.at_step(10)
    below = gang.descendants(gang.agents[1].pid)
    assert len(below) == 2
    gang.agents[1].kill()
    gang.agents[1].wait()
    deadline = time.monotonic() + 2
    while any(Path(f"/proc/{pid}").exists() for pid in below) and time.monotonic() < deadline:
        time.sleep(0.01)
    running = [pid for pid in below if Path(f"/proc/{pid}").exists()]
    assert not running


def test_lost_coordinator_is_replaced(make_gang):
    gang = make_gang(3)
    gang.start_all()
    gang.at_step(15)
    gang.kill_pod(0)
    deadline = time.monotonic() + 5
    while gang.trainers(1) or gang.trainers(2):
        assert time.monotonic() < deadline, "peers train on without a coordinator"
        time.sleep(0.05)
    gang.start(0)
    report = gang.until(lambda r: r.state == "running" or r.state == "complete")
    assert report.epoch >= 2
    assert report.pod_uid == gang.pod_uids[0]
    gang.until(lambda r: r.state == "complete")
    assert gang.exit_codes() == {0: 0, 1: 0, 2: 0}
    assert_resumed(gang)


@pytest.mark.parametrize("replica", [0, 1])
def test_terminated_pod_saves_and_leaves(make_gang, replica):
    gang = make_gang(3)
    gang.start_all()
    gang.at_step(13)
    gang.agents[replica].send_signal(signal.SIGTERM)
    assert gang.agents[replica].wait(10) == 75
    last = gang.history()[-1]["step"]
    gang.start(replica)
    report = gang.until(lambda r: r.state == "complete")
    assert gang.exit_codes() == {0: 0, 1: 0, 2: 0}
    assert report.restarts == []
    # Saved at the step at which it left: none is done twice.
    steps = [entry["step"] for entry in gang.history()]
    assert steps == list(range(1, 61))
    assert last < 60


def test_all_terminated_at_once(make_gang):
    gang = make_gang(3)
    gang.start_all()
    gang.at_step(13)
    for agent in gang.agents.values():
        agent.send_signal(signal.SIGTERM)
    assert gang.exit_codes(15) == {0: 75, 1: 75, 2: 75}
    assert gang.leftovers() == []
    saved = int((gang.folder / "state").read_text())
    assert saved == gang.history()[-1]["step"]


def test_cut_off_peer_stops_and_comes_back(make_gang):
    gang = make_gang(3)
    gang.start_all()
    gang.at_step(15)
    os.kill(gang.agents[2].pid, signal.SIGSTOP)
    gang.until(lambda r: r.state == "recovering" and r.members[2].state == "missing")
    assert not gang.trainers(0) and not gang.trainers(1)
    time.sleep(0.5)
    os.kill(gang.agents[2].pid, signal.SIGCONT)
    report = gang.until(lambda r: r.state == "complete")
    assert gang.exit_codes() == {0: 0, 1: 0, 2: 0}
    assert report.restarts == []
    assert_resumed(gang)


def test_older_incarnation_is_fenced(make_gang):
    gang = make_gang(2)
    gang.env["FAKE_STEPS"] = "200"
    gang.start_all()
    gang.at_step(10)
    old = gang.agents[1]
    old.send_signal(signal.SIGSTOP)
    gang.until(lambda r: r.state == "recovering")
    stuck = gang.descendants(old.pid)
    gang.start(1)
    gang.until(lambda r: r.state == "running" and r.epoch == 2)
    old.send_signal(signal.SIGCONT)
    assert old.wait(10) == 75
    assert not any(Path(f"/proc/{pid}").exists() for pid in stuck)
    report = gang.until(lambda r: r.state == "complete")
    assert report.epoch == 2
    assert gang.exit_codes() == {0: 0, 1: 0}


def test_bug_that_repeats_fails_the_culprits_pod(make_gang):
    gang = make_gang(3, in_place_restarts=2, same_error_limit=0)
    gang.fault(rank=1, step=7, do="raise")
    gang.start_all()
    report = gang.until(lambda r: r.state == "failed")
    assert gang.agents[1].wait(10) == 1
    assert [r.reason for r in report.restarts] == ["ProcessCrashed"] * 2
    assert report.failure.retryable and report.failure.replica == 1
    assert "ZeroDivisionError" in report.failure.message
    assert "a user's bug" in report.failure.message
    assert "restarted in place 2 times without progress" in report.failure.message
    assert gang.termination(1)["reason"] == "ProcessCrashed"
    # The others wait; a new pod gets a new budget.
    assert gang.agents[0].poll() is None and gang.agents[2].poll() is None
    (gang.folder / "fault").unlink()
    gang.start(1)
    gang.until(lambda r: r.state == "complete")
    assert gang.exit_codes() == {0: 0, 1: 0, 2: 0}


def test_bug_of_the_code_ends_the_job_at_once(make_gang):
    gang = make_gang(3, in_place_restarts=100)
    gang.fault(rank=1, step=7, do="raise")
    gang.start_all()
    assert gang.exit_codes() == {0: 78, 1: 78, 2: 78}
    failure = gang.termination(2)
    assert failure["reason"] == "ZeroDivisionError" and failure["retryable"] is False
    assert "a user's bug (3 times in a row after step" in failure["message"]
    assert "the code fails in the same way each time" in failure["message"]


def test_bug_in_rank_0_fails_the_coordinators_pod(make_gang):
    gang = make_gang(2, in_place_restarts=0)
    gang.fault(rank=0, step=3, do="raise")
    gang.start_all()
    assert gang.agents[0].wait(20) == 1
    assert gang.termination(0)["replica"] == 0
    (gang.folder / "fault").unlink()
    gang.start(0)
    gang.until(lambda r: r.state == "complete")
    assert gang.exit_codes() == {0: 0, 1: 0}


def test_bad_configuration_ends_all(make_gang):
    gang = make_gang(3)
    gang.fault(rank="all", step=0, do="exit:78")
    gang.start_all()
    assert gang.exit_codes() == {0: 78, 1: 78, 2: 78}
    for replica in range(3):
        failure = gang.termination(replica)
        assert failure["reason"] == "ConfigError"
        assert failure["message"] == "learningRate: 0 is not above 0"
        assert failure["retryable"] is False
    assert gang.leftovers() == []


def test_hang_is_found_and_named(make_gang):
    gang = make_gang(3, hang_timeout_seconds=2)
    gang.fault(rank=1, step=12, do="hang", once=True)
    gang.start_all()
    report = gang.until(lambda r: r.restarts)
    assert report.restarts[0].reason == "ProcessHung"
    report = gang.until(lambda r: r.state == "complete")
    assert_resumed(gang)


def test_evidence_of_a_hang_holds_the_stack_of_the_rank(make_gang):
    gang = make_gang(2, hang_timeout_seconds=3)
    gang.env["DRAKKAR_WARM"] = "1"
    gang.fault(rank=1, step=12, do="hang", once=True)
    gang.start_all()
    (restart,) = gang.until(lambda r: r.restarts, 120).restarts
    (line,) = [line for line in restart.evidence if line.startswith("rank 1 on node-1: step 12")]
    assert "; fault (fake_trainer.py:" in line, restart.evidence
    assert "stacks of rank 1:" in gang.log()
    gang.until(lambda r: r.state == "complete")


def test_stopped_process_is_named_as_the_cause_of_a_hang(make_gang):
    gang = make_gang(3, hang_timeout_seconds=2)
    gang.start_all()
    gang.at_step(10)
    (victim,) = gang.trainers(2)
    os.kill(victim, signal.SIGSTOP)
    report = gang.until(lambda r: r.restarts)
    (restart,) = report.restarts
    assert (restart.reason, restart.replica, restart.node) == ("ProcessHung", 2, "node-2")
    assert "rank 2 is held by the kernel (process state T)" in restart.message
    gang.until(lambda r: r.state == "complete")


def test_several_processes_per_replica(make_gang):
    gang = make_gang(2, processes_per_replica=2)
    gang.start_all()
    gang.at_step(10)
    assert len(gang.trainers(1)) == 2
    os.kill(gang.trainers(1)[1], signal.SIGKILL)
    report = gang.until(lambda r: r.state == "complete")
    assert "rank 3 on node node-1" in report.restarts[0].message
    assert gang.exit_codes() == {0: 0, 1: 0}


def test_fork_server_killed(make_gang):
    gang = make_gang(2)
    gang.start_all()
    gang.at_step(10)
    (server,) = [pid for pid in gang.descendants(gang.agents[1].pid) if pid not in gang.trainers(1)]
    os.kill(server, signal.SIGKILL)
    report = gang.until(lambda r: r.state == "complete")
    assert gang.exit_codes() == {0: 0, 1: 0}
    assert report.restarts[0].replica == 1
    assert gang.leftovers() == []


def test_command_that_does_not_exist(make_gang):
    gang = make_gang(1, in_place_restarts=1)
    gang.command = ["drakkar-no-such-command"]
    gang.start_all()
    assert gang.exit_codes() == {0: 1}
    assert "exited with code 127" in gang.termination(0)["message"]
    assert "drakkar-no-such-command" in gang.log()
