"""What an agent makes of SIGTERM, without processes or a network."""

import asyncio
import json
import time

import pytest
from pydantic import ValidationError

from drakkar.protocol import Failure, GangConfig, PodFacts, Report
from drakkar_workers.agent.agent import Agent
from drakkar_workers.agent.clock import Clock
from drakkar_workers.agent.coordinator import Coordinator
from drakkar_workers.agent.gang import Gang
from drakkar_workers.agent.processes import Trainer
from drakkar_workers.agent.settings import Settings
from drakkar_workers.agent.timing import Timing
from drakkar_workers.agent.wire import Command, Exit

GANG = GangConfig(
    job="j", namespace="n", uid="u", replicas=1, processes_per_replica=2, coordinator="c"
)


@pytest.fixture
def agent(tmp_path) -> Agent:
    settings = Settings(
        gang=GANG,
        pod=PodFacts(replica_index=0, pod_name="j-0", pod_uid="p", node_name="w"),
        timing=Timing(),
        command=("true",),
        bind=None,
        termination_log=tmp_path / "log",
    )
    agent = Agent(settings, {})
    gang = Gang(GANG, "p", settings.timing, time.monotonic(), Clock())
    agent._coordinator = Coordinator(gang)
    return agent


def run(agent: Agent, *exits: Exit | None) -> list[Trainer]:
    agent._processes.epoch = 1
    trainers = [Trainer(rank, exit=end) for rank, end in enumerate(exits)]
    agent._processes.trainers = {trainer.rank: trainer for trainer in trainers}
    return trainers


@pytest.mark.parametrize("ends", [(), (Exit(signal=9, stopped=True), Exit(code=1))])
def test_who_leaves_while_no_trainer_runs_has_lost_nothing(agent, ends) -> None:
    run(agent, *ends)
    agent._terminate()
    assert agent._situation().saved


@pytest.mark.parametrize(("code", "saved"), [(75, True), (0, True), (1, False)])
def test_only_ranks_that_ran_at_sigterm_have_to_save(agent, code: int, saved: bool) -> None:
    _, second = run(agent, Exit(code=1), None)
    agent._terminate()
    second.exit = Exit(code=code)
    assert agent._situation().saved is saved


@pytest.mark.parametrize(("code", "reason"), [(75, None), (143, "Terminated")])
def test_a_coordinator_that_leaves_always_leaves_its_report(agent, code: int, reason) -> None:
    agent._terminate()
    agent._leave_message(code)
    text = agent._settings.termination_log.read_text()
    assert Report.model_validate_json(text).pod_uid == "p"
    assert json.loads(text).get("reason") == reason


def test_a_failure_goes_first_where_no_pod_is_terminated(agent) -> None:
    failure = Failure(reason="ConfigError", message="bad", retryable=False)
    agent._command = Command(action="fail", epoch=1, exit_code=78, failure=failure)
    agent._leave_message(78)
    assert json.loads(agent._settings.termination_log.read_text())["reason"] == "ConfigError"


async def _contact(agent: Agent, answers: list[Command | Exception]) -> None:
    async def exchange(_wait: float) -> Command:
        if not answers:
            await asyncio.sleep(3600)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    agent._exchange = exchange
    task = asyncio.create_task(agent._keep_contact())
    async with asyncio.timeout(5):
        while agent._command is None and not task.done():
            await asyncio.sleep(0.01)
    assert not task.done()
    task.cancel()


def test_an_answer_that_cannot_be_made_does_not_end_the_agent(agent) -> None:
    with pytest.raises(ValidationError) as caught:
        Command(action="wait", epoch=1 << 31)
    asyncio.run(_contact(agent, [caught.value, Command(action="wait", epoch=1)]))
