"""The router as a pod runs it, before two real engines of a small model."""

import json
import re
import signal
import subprocess
import sys
import threading
import urllib.request

import openai
import pytest

from drakkar.routing import Endpoint, RouteTable
from support.serving import DEADLINE, RouterProcess, Server


@pytest.fixture(scope="module")
def pair(tiny):
    """Two engines of the same model."""
    arguments = ("--name", "tiny", "--cache-gib", "0.01", "--threads", "1", "--drain-delay", "0")
    with Server(tiny, *arguments) as one, Server(tiny, *arguments) as other:
        yield one.started(), other.started()


@pytest.fixture
def router():
    with RouterProcess("--uid", "u", "--drain-delay", "0") as one:
        yield one.started()


def table(*engines, version=1, **fields):
    endpoints = [
        Endpoint(name=f"r{number}", url=engine.url, revision="1", ready=True)
        for number, engine in enumerate(engines)
    ]
    return RouteTable(service="team/chat", uid="u", version=version, endpoints=endpoints, **fields)


def test_clients_notice_no_difference(pair, router):
    router.exchange(table(*pair))
    ask = {"model": "tiny", "prompt": "The sea", "max_tokens": 24, "temperature": 0}
    plain, routed = (
        openai.OpenAI(base_url=f"{one.url}/v1", api_key="unused") for one in (pair[0], router)
    )
    with plain, routed:
        wanted = plain.completions.create(**ask).choices[0].text
        for _ in range(6):
            assert routed.completions.create(**ask).choices[0].text == wanted
        pieces = [event.choices[0].text for event in routed.completions.create(**ask, stream=True)]
        assert "".join(pieces) == wanted
        assert [one.id for one in routed.models.list()] == ["tiny"]
        with pytest.raises(openai.BadRequestError, match="the model takes 512 tokens"):
            routed.completions.create(**{**ask, "max_tokens": 100_000})
        with pytest.raises(openai.NotFoundError):
            routed.completions.create(**{**ask, "model": "none"})


def test_repeated_prompts_find_the_cache_that_has_them(pair, router):
    router.exchange(table(*pair))
    # 160 tokens that no other test has asked with, for each of 4.
    prompts = [f"{number} of four: " + "abcdefgh" * 20 for number in range(4)]
    answers = [
        router.send("/v1/completions", {"prompt": prompt, "max_tokens": 1})
        for prompt in prompts * 3
    ]
    assert [status for status, _ in answers] == [200] * 12
    cached = [body["usage"]["prompt_tokens_details"]["cached_tokens"] for _, body in answers]
    assert all(cached[4:]), cached


def test_a_replica_that_drains_under_load_loses_no_request(tiny, pair, router):
    with Server(tiny, "--name", "tiny", "--cache-gib", "0.01", "--drain-delay", "0") as leaving:
        leaving.started()
        router.exchange(table(pair[0], leaving, policy={"kind": "round-robin"}))
        outcomes = []

        def ask(number):
            for step in range(5):
                body = {"prompt": f"{number} {step}", "max_tokens": 20, "ignore_eos": True}
                outcomes.append(router.send("/v1/completions", body)[0])

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        leaving.until(lambda: len(outcomes) >= 2, "requests are answered")
        # The table still names it: the router finds out by itself.
        leaving.terminate()
        for thread in threads:
            thread.join(DEADLINE)
        assert outcomes == [200] * 20
        assert leaving.process.wait(DEADLINE) == 0


def test_a_stream_whose_engine_is_killed_ends_with_an_error(tiny, router):
    with Server(tiny, "--name", "tiny", "--cache-gib", "0.01") as doomed:
        doomed.started()
        router.exchange(table(doomed))
        body = {"prompt": "x", "max_tokens": 500, "ignore_eos": True, "stream": True}
        url = f"{router.url}/v1/completions"
        with urllib.request.urlopen(
            urllib.request.Request(url, json.dumps(body).encode()), timeout=DEADLINE
        ) as answer:
            first = answer.readline()
            doomed.process.send_signal(signal.SIGKILL)
            rest = answer.read()
    assert first.startswith(b"data: ")
    assert b"[DONE]" in rest or b'"error"' in rest.rstrip().rsplit(b"\n\n", 1)[-1]
    if b"[DONE]" not in rest:
        stats = router.exchange(table())
        assert stats["revisions"][0]["errors"] == {"broken": 1}


def test_a_drained_router_ends_what_it_has_begun(pair, router):
    router.exchange(table(*pair))
    body = {"prompt": "x", "max_tokens": 300, "ignore_eos": True, "stream": True}
    request = urllib.request.Request(f"{router.url}/v1/completions", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
        answer.readline()
        router.terminate()
        assert answer.read().endswith(b"data: [DONE]\n\n")
    assert router.process.wait(DEADLINE) == 0


def test_who_asks_at_zero_is_answered_by_the_first_replica(pair, router):
    stats = router.exchange(table(version=1))
    answers = []
    asking = threading.Thread(
        target=lambda: answers.append(router.send("/v1/completions", {"prompt": "x"}))
    )
    asking.start()
    stats = router.exchange(table(version=1), after=stats["version"], wait=30)
    while stats["held"] != 1:
        stats = router.exchange(table(version=1), after=stats["version"], wait=30)
    router.exchange(table(pair[0], version=2))
    asking.join(DEADLINE)
    assert answers[0][0] == 200


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--uid", "u"],
        ["--uid", "u", "--token-digest", "secret"],
        ["--uid", "u", "--replica", "http://a"],
        ["--replica", "a"],
    ],
)
def test_what_makes_no_sense_is_said_at_the_start(arguments):
    command = [sys.executable, "-m", "drakkar_workers.serve.router", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert ended.returncode == 2
    assert re.search(r"error: .*--(replica|token-digest)", ended.stderr)
