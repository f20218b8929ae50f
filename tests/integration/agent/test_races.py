"""Faults at random moments, one after the other, in one gang."""

import itertools
import os
import random
import signal
import time

import pytest

from drakkar_workers.agent.gang import RESTARTS_KEPT

pytestmark = pytest.mark.slow


def test_twenty_killed_trainers(make_gang):
    gang = make_gang(3)
    gang.env |= {"FAKE_STEPS": "1000000", "FAKE_EVERY": "5", "FAKE_STEP_SECONDS": "0.01"}
    gang.start_all()
    rng = random.Random(1)
    victims = []
    reached = 0
    for _ in range(20):
        reached = gang.at_step(reached + 10).progress.step
        time.sleep(rng.uniform(0, 0.2))
        victims.append(rng.randrange(3))
        (pid,) = gang.trainers(victims[-1])
        os.kill(pid, signal.SIGKILL)
        gang.until(lambda r: len(r.restarts) == len(victims))
    report = gang.at_step(reached + 10)
    assert [restart.replica for restart in report.restarts] == victims
    assert len({restart.id for restart in report.restarts}) == 20 <= RESTARTS_KEPT
    assert report.epoch == 21


def test_twenty_faults_of_all_kinds(make_gang):
    gang = make_gang(3)
    gang.env |= {"FAKE_STEPS": "1000000", "FAKE_EVERY": "5", "FAKE_STEP_SECONDS": "0.01"}
    gang.start_all()
    rng = random.Random(2)
    reached = 0
    for _ in range(20):
        reached = gang.at_step(reached + 10).progress.step
        time.sleep(rng.uniform(0, 0.2))
        replica = rng.randrange(3)
        agent = gang.agents[replica]
        match rng.choice(["trainer", "pod", "terminate", "freeze", "agent"]):
            case "trainer":
                for pid in gang.trainers(replica):
                    os.kill(pid, signal.SIGKILL)
            case "pod":
                gang.kill_pod(replica)
                gang.start(replica)
            case "agent":
                agent.kill()
                agent.wait()
                gang.start(replica)
            case "terminate":
                agent.send_signal(signal.SIGTERM)
                assert agent.wait(15) in (75, 143)
                gang.start(replica)
            case "freeze":
                agent.send_signal(signal.SIGSTOP)
                time.sleep(rng.uniform(0.1, 3))
                agent.send_signal(signal.SIGCONT)
    gang.at_step(reached + 10)
    steps = [entry["step"] for entry in gang.history()]
    for before, after in itertools.pairwise(steps):
        assert after == before + 1 or before - 5 <= after - 1 <= before
    for agent in gang.agents.values():
        agent.send_signal(signal.SIGTERM)
    assert set(gang.exit_codes().values()) == {75}
    assert gang.leftovers() == []
