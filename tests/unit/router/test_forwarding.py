"""A router before replicas that misbehave, on real sockets."""

import asyncio
import json
import socket

import aiohttp
import pytest

from drakkar.routing import Endpoint, RouteTable, digest
from drakkar_workers.serve.router import fleet
from drakkar_workers.serve.router.pick import WAITING_LIMIT
from support.fake_engine import TOKEN, FakeEngine, world


def events_of(text):
    """Parsed events of a stream."""
    return [
        line if (line := one[6:]) == "[DONE]" else json.loads(line)
        for one in text.split("\n\n")
        if one.startswith("data: ")
    ]


@pytest.fixture
def nobody():
    """An address at which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{one.getsockname()[1]}"


def revision(here, name="1"):
    return next(one for one in here.stats.revisions if one.name == name)


async def test_answers_pass_unchanged_and_are_counted():
    async with world() as here, FakeEngine() as engine:
        await here.table(engine)
        status, body = await here.ask(headers={"Authorization": "Bearer k", "X-Other": "1"})
        assert (status, body["choices"][0]["text"]) == (200, "one two three")
        assert engine.headers[0]["Authorization"] == "Bearer k"
        assert engine.headers[0]["X-Other"] == "1"
        assert json.loads(engine.asked[0]) == {"prompt": "x"}
        counted = revision(here)
        assert (counted.requests, counted.errors, counted.latency.count) == (1, {}, 1)
        assert (counted.prompt_tokens, counted.generation_tokens) == (5, 3)
        assert here.stats.in_flight == here.stats.held == 0


async def test_streams_pass_piece_by_piece():
    async with world() as here, FakeEngine("wait in the midst") as engine:
        await here.table(engine)
        data = json.dumps({"prompt": "x", "stream": True})
        async with here.session.post(f"{here.url}/v1/completions", data=data) as answer:
            first = await answer.content.readuntil(b"\n\n")
            assert b"one" in first, "the first word comes while the engine still works"
            assert here.stats.in_flight == 1
            engine.go.set()
            rest = await answer.text()
        assert events_of(rest)[-1] == "[DONE]"
        counted = revision(here)
        assert (counted.ttft.count, counted.tpot.count, counted.errors) == (1, 1, {})


async def test_a_client_that_leaves_frees_the_engine():
    async with world() as here, FakeEngine("wait in the midst") as engine:
        await here.table(engine)
        data = json.dumps({"prompt": "x", "stream": True})
        async with here.session.post(f"{here.url}/v1/completions", data=data) as answer:
            await answer.content.readuntil(b"\n\n")
        async with asyncio.timeout(60):
            await engine.left.wait()
        await here.until(lambda: here.stats.in_flight == 0, "nothing is in flight")
        assert revision(here).cancelled == 1
        assert revision(here).errors == {}


async def test_a_client_that_leaves_before_the_first_byte_frees_the_engine():
    async with world() as here, FakeEngine("hang") as engine:
        await here.table(engine)
        asking = asyncio.create_task(here.ask())
        await here.until(lambda: engine.running == 1, "it is asked")
        asking.cancel()
        async with asyncio.timeout(60):
            await engine.left.wait()
        await here.until(lambda: here.stats.in_flight == 0, "nothing is in flight")
        assert len(engine.asked) == 1, "what nobody waits for is not tried again"


@pytest.mark.parametrize("mode", ["die at once", 500, 502, 503])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_fails_before_the_first_byte_is_tried_elsewhere(mode, stream):
    async with world() as here, FakeEngine(mode) as bad, FakeEngine() as good:
        await here.table(bad, good)
        # So often that one is sent to the bad one first; ties are drawn.
        for _ in range(30):
            status, _ = await here.ask(stream=stream)
            assert status == 200
            if bad.asked:
                break
        assert bad.asked
        assert revision(here).requests == len(bad.asked) + len(good.asked)
        assert sum(revision(here).errors.values()) == len(bad.asked)


async def test_a_stream_that_dies_before_its_first_event_is_tried_elsewhere():
    async with world() as here, FakeEngine("headers only") as bad, FakeEngine() as good:
        await here.table(bad, good)
        for _ in range(30):
            status, text = await here.ask(stream=True)
            assert status == 200
            assert events_of(text)[-1] == "[DONE]"
            if bad.asked:
                return
        raise AssertionError("the bad one was never asked")


async def test_what_breaks_replicas_is_not_shown_to_all_of_them():
    async with (
        world() as here, FakeEngine("die at once") as a, FakeEngine("die at once") as b,
        FakeEngine("die at once") as c,
    ):  # fmt: skip
        await here.table(a, b, c)
        status, body = await here.ask()
        assert status == 500
        assert set(body["error"]) == {"message", "type", "param", "code"}
        assert sum(len(one.asked) for one in (a, b, c)) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 501])
async def test_what_the_client_did_wrong_is_told_at_once(status):
    async with world() as here, FakeEngine(status) as one, FakeEngine(status) as other:
        await here.table(one, other)
        found, body = await here.ask()
        assert (found, body["error"]["message"]) == (status, "as told")
        assert len(one.asked) + len(other.asked) == 1
        assert revision(here).faults == 0


async def test_the_engines_own_error_is_shown_if_all_fail():
    async with world() as here, FakeEngine(500) as one, FakeEngine(500) as other:
        await here.table(one, other)
        status, body = await here.ask()
        assert (status, body["error"]["code"]) == (500, "as_told")


@pytest.mark.parametrize("mode", ["die in the midst", "end in the midst", "fail in the midst"])
async def test_no_stream_is_lost_in_silence(mode):
    async with world() as here, FakeEngine(mode) as bad, FakeEngine() as good:
        await here.table(bad, (good, {"ready": False}))
        data = json.dumps({"prompt": "x", "stream": True})
        async with here.session.post(f"{here.url}/v1/completions", data=data) as answer:
            assert b"one" in await answer.content.readuntil(b"\n\n")
            bad.go.set()
            text = await answer.text()
        last = text.rstrip().rsplit("\n\n", 1)[-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_error"
        assert "[DONE]" not in text
        assert good.asked == [], "half an answer is not begun anew"
        assert revision(here).errors == {"broken": 1}


async def test_an_engine_that_hangs_ends_in_a_timeout():
    async with world() as here, FakeEngine("hang") as engine:
        await here.table(engine, first_byte_seconds=0.1)
        status, body = await here.ask()
        assert (status, body["error"]["code"]) == (504, "timeout")
        assert revision(here).errors == {"timeout": 1}


async def test_a_stream_that_stalls_ends_with_an_error():
    async with world(stall=0.1) as here, FakeEngine("wait in the midst") as engine:
        await here.table(engine)
        _, text = await here.ask(stream=True)
        assert events_of(text)[-1]["error"]["code"] == "timeout"
        async with asyncio.timeout(60):
            await engine.left.wait()


async def test_what_runs_at_a_replica_that_has_gone_is_done_elsewhere():
    async with world() as here, FakeEngine("hang") as lost, FakeEngine() as good:
        await here.table(lost)
        asking = asyncio.create_task(here.ask())
        await here.until(lambda: lost.running == 1, "it is asked")
        await here.table((good, {"name": "other"}))
        assert (await asking)[0] == 200


async def test_a_stream_of_a_replica_that_has_gone_ends_with_an_error():
    async with world() as here, FakeEngine("wait in the midst") as lost:
        await here.table(lost)
        asking = asyncio.create_task(here.ask(stream=True))
        await here.until(
            lambda: any(one.ttft.count for one in here.stats.revisions), "a word has come"
        )
        await here.table()
        _, text = await asking
        assert "has gone" in events_of(text)[-1]["error"]["message"]


async def test_requests_at_a_replica_that_drains_end_there_and_it_gets_no_others():
    async with world() as here, FakeEngine("hang") as old, FakeEngine() as new:
        await here.table(old)
        asking = asyncio.create_task(here.ask())
        await here.until(lambda: old.running == 1, "it is asked")
        await here.table((old, {"draining": True}), new)
        for _ in range(5):
            await here.ask()
        assert (len(old.asked), len(new.asked)) == (1, 5)
        old.go.set()
        assert (await asking)[0] == 200


async def test_a_replica_that_cant_be_reached_costs_nothing(nobody):
    async with world() as here, FakeEngine() as good:
        await here.table(nobody, good)
        for _ in range(20):
            assert (await here.ask())[0] == 200
        bad = next(one for one in here.stats.endpoints if one.name == "r0")
        assert revision(here).errors.keys() <= {"connect"}
        if revision(here).errors.get("connect", 0) >= 3:
            assert bad.circuit != "closed"


async def test_others_are_tried_even_if_nothing_is_held(nobody):
    async with world() as here, FakeEngine() as good:
        await here.table(nobody, good, hold_seconds=0)
        assert [(await here.ask())[0] for _ in range(10)] == [200] * 10


async def test_a_lone_replica_that_restarts_loses_no_request(nobody):
    async with world() as here, FakeEngine() as engine:
        await here.table(nobody)
        asking = [asyncio.create_task(here.ask()) for _ in range(5)]
        await here.until(lambda: here.stats.retries >= 5, "they were tried")
        await here.table(engine)
        assert [status for status, _ in await asyncio.gather(*asking)] == [200] * 5


async def test_requests_are_held_until_the_first_replica_is_ready():
    async with world() as here, FakeEngine() as engine:
        _, before = await here.table(hold_seconds=60)
        asking = [asyncio.create_task(here.ask()) for _ in range(4)]
        await here.until(lambda: here.stats.held == 4, "they are held")
        assert here.router.forwarder.record.load.level == 4, "the autoscaler sees them"
        assert here.stats.version > before["version"], "the operator hears of it at once"
        await here.table(engine)
        assert [status for status, _ in await asyncio.gather(*asking)] == [200] * 4


async def test_the_operators_poll_ends_when_a_request_needs_the_first_replica():
    async with world() as here:
        _, before = await here.table()
        poll = asyncio.create_task(here.table(after=before["version"], wait=30))
        await here.until(
            lambda: here.router.forwarder.fleet.table.version == here.version, "it is polled"
        )
        asking = asyncio.create_task(here.ask())
        _, stats = await poll
        assert stats["held"] == 1
        asking.cancel()
        await here.until(lambda: here.stats.held == 0, "who left is not held")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"hold_seconds": 0}, 503, "no_replica"),
        ({"hold_seconds": 0.05}, 503, "no_replica"),
        ({"hold_limit": 0}, 429, "queue_full"),
    ],
)
async def test_who_cant_be_held_is_told_so(fields, status, code):
    async with world() as here:
        await here.table(**fields)
        found, body = await here.ask()
        assert (found, body["error"]["code"]) == (status, code)
        assert here.stats.refused == {code: 1}
        assert here.stats.held == 0


async def test_keys_take_turns_when_replicas_are_full():
    async with world() as here, FakeEngine("hang") as engine:
        await here.table(engine, endpoint_limit=1)
        order = []

        async def ask(key):
            await here.ask(headers={"Authorization": key}, prompt=key)
            order.append(key)

        asking = [asyncio.create_task(ask("first"))]
        await here.until(lambda: engine.running == 1, "the replica is full")
        for number in range(6):
            asking.append(asyncio.create_task(ask("flood")))
            await here.until(lambda n=number: here.stats.held == n + 1, "it waits")
        asking.append(asyncio.create_task(ask("other")))
        await here.until(lambda: here.stats.held == 7, "it waits")
        engine.go.set()
        await asyncio.gather(*asking)
        assert engine.most_running == 1
        asked = [json.loads(body)["prompt"] for body in engine.asked]
        assert asked.index("other") <= 3, "it does not wait for the whole flood"


async def test_a_replica_in_which_many_wait_gets_no_more(monkeypatch):
    # However long this machine takes to ask again.
    monkeypatch.setattr(fleet, "STALE_SECONDS", 1e9)
    async with world() as here, FakeEngine() as full, FakeEngine() as free:
        full.metrics = f"vllm:num_requests_waiting {WAITING_LIMIT + 5}\nvllm:num_requests_running 9"
        await here.table(full, free)
        await here.until(
            lambda: [one.waiting for one in here.stats.endpoints][:1] == [WAITING_LIMIT + 5],
            "its figures are known",
        )
        for _ in range(10):
            await here.ask()
        assert (len(full.asked), len(free.asked)) == (0, 10)


async def test_prompts_with_the_same_beginning_go_to_the_same_replica():
    async with (
        world() as here, FakeEngine() as a, FakeEngine() as b, FakeEngine() as c
    ):  # fmt: skip
        await here.table(a, b, c)
        for number in range(12):
            for kind in "xyz":
                await here.ask(prompt=kind * 640 + str(number) * 64)
        for engine in (a, b, c):
            kinds = {json.loads(body)["prompt"][0] for body in engine.asked}
            others = [one for one in (a, b, c) if one is not engine]
            assert all(
                kinds.isdisjoint({json.loads(body)["prompt"][0] for body in one.asked})
                for one in others
            )


async def test_revisions_get_their_shares():
    async with world() as here, FakeEngine() as old, FakeEngine(500) as new:
        await here.table(
            old, (new, {"revision": "2"}), revisions={"1": 1, "2": 0}, policy={"kind": "scored"}
        )
        for _ in range(5):
            assert (await here.ask())[0] == 200
        assert new.asked == []
        await here.table(old, (new, {"revision": "2"}), revisions={"1": 0.0001, "2": 100})
        assert (await here.ask())[0] == 200, "the other revision saves the request"
        assert revision(here, "2").faults == 1, "and the fault is counted all the same"


async def test_adapters_are_not_loaded_through_one_replica():
    async with world() as here, FakeEngine() as engine:
        await here.table(engine)
        status, _ = await here.ask(path="/v1/load_lora_adapter")
        assert (status, engine.asked) == (403, [])
        assert (await here.ask(path="/metrics", method="GET"))[0] == 404


async def raw(here, line, body=b'{"prompt": "x"}'):
    """Status of a request with this request line."""
    host, port = here.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"{line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await reader.read()
    writer.close()
    return int(answer.split()[1])


@pytest.mark.parametrize(
    "path",
    ["/v1/../metrics", "/v1//load_lora_adapter", "/v1/./load_lora_adapter", "/v1/%2e%2e/metrics",
     "/v1/%6Coad_lora_adapter", "/v1/completions/..", "/", "/v2/x"],
)  # fmt: skip
async def test_no_path_leads_elsewhere(path):
    async with world() as here, FakeEngine() as engine:
        await here.table(engine)
        assert await raw(here, f"POST {path}") in (400, 403, 404)
        assert engine.asked == []


async def test_the_host_of_a_request_line_leads_nowhere():
    async with world() as here, FakeEngine() as engine:
        await here.table(engine)
        assert await raw(here, "POST http://elsewhere:1/v1/completions?a=b") == 200
        assert len(engine.asked) == 1


async def test_bodies_are_bounded_one_by_one_and_together():
    async with world() as here, FakeEngine("hang") as engine:
        await here.table(engine)
        status, body = await here.ask(prompt="x" * (17 << 20))
        assert (status, "larger than" in body["error"]["message"]) == (413, True)
        here.router.forwarder.bodies = (256 << 20) - 5
        status, body = await here.ask()
        assert (status, body["error"]["code"]) == (429, "queue_full")
        here.router.forwarder.bodies = 0
        engine.go.set()
        assert (await here.ask())[0] == 200
        assert here.router.forwarder.bodies == 0


async def test_keys_are_checked_here_if_they_are_given(tmp_path):
    keys = tmp_path / "keys.json"
    keys.write_text('{"keys": [{"name": "a", "key": "abcdefgh", "requests_per_minute": 1}]}')
    async with world(keys=keys) as here, FakeEngine() as engine:
        await here.table(engine)
        good = {"Authorization": "Bearer abcdefgh"}
        assert (await here.ask())[0] == 401
        assert (await here.ask(headers=good))[0] == 200
        status, body = await here.ask(headers=good)
        assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
        assert len(engine.asked) == 1


# The operator's side


async def test_a_router_is_ready_once_it_has_a_table():
    async with world() as here:
        assert (await here.ask(path="/health", method="GET"))[0] == 503
        await here.table()
        assert (await here.ask(path="/health", method="GET"))[0] == 200
        here.router.draining = True
        assert (await here.ask(path="/health", method="GET"))[0] == 503
        assert (await here.ask(path="/livez", method="GET"))[0] == 200


async def test_the_table_of_another_service_is_refused():
    async with world() as here, FakeEngine() as engine, FakeEngine() as foreign:
        await here.table(engine)
        status, body = await here.table(foreign, uid="other")
        assert (status, body["error"]["code"]) == (409, "other_service")
        await here.ask()
        assert len(engine.asked) == 1


@pytest.mark.parametrize("token", ["", "another", digest(TOKEN)])
async def test_only_the_operator_says_where_requests_go(token):
    async with world() as here, FakeEngine() as engine, FakeEngine() as foreign:
        await here.table(engine)
        table = here.router.forwarder.fleet.table.model_copy(
            update={
                "version": 9,
                "endpoints": [Endpoint(name="f", url=foreign.url, revision="1", ready=True)],
            }
        )
        status, body = await here.exchange(table, token=token)
        assert (status, body["error"]["code"]) == (401, "invalid_token")
        await here.ask()
        assert (len(engine.asked), len(foreign.asked)) == (1, 0)


async def test_without_an_operator_nobody_does():
    async with world(token_digest=None) as here:
        for token in ("", TOKEN):
            status, _ = await here.exchange(
                RouteTable(service="a/b", uid="u", version=1), token=token
            )
            assert status == 401


async def test_an_older_table_is_not_taken():
    async with world() as here, FakeEngine() as engine:
        await here.table(engine, version=7)
        status, stats = await here.table(version=6)
        assert (status, stats["tableVersion"]) == (200, 7)
        assert (await here.ask())[0] == 200


async def test_a_table_of_nonsense_is_refused_by_its_field():
    async with (
        world() as here,
        here.session.post(
            f"{here.control}/v1/exchange",
            data=b'{"uid": "u"}',
            headers={"Authorization": f"Bearer {TOKEN}"},
        ) as answer,
    ):
        assert (answer.status, "service" in await answer.text()) == (400, True)


async def test_a_poll_waits_for_news_and_a_later_one_ends_it():
    async with world() as here:
        _, stats = await here.table()
        first = asyncio.create_task(here.table(after=stats["version"], wait=30))
        await here.until(lambda: here.router.forwarder.fleet.table.version == 2, "it is asked")
        await here.table(after=stats["version"], wait=0)
        assert (await first)[0] == 200


async def test_prometheus_reads_the_same_counts():
    async with world() as here, FakeEngine() as engine:
        await here.table(engine)
        await here.ask(stream=True)
        async with here.session.get(f"{here.control}/metrics") as answer:
            text = await answer.text()
        assert 'drakkar:router_requests_total{revision="1"} 1.0' in text
        assert (
            'drakkar:router_time_to_first_token_seconds_bucket{le="+Inf",revision="1"} 1.0' in text
        )


async def test_nothing_is_in_flight_after_a_storm():
    """Clients that leave, engines that die, tables that change: the books balance in the end."""
    modes = ["well", "die in the midst", "die at once", 500, "well"]
    async with world() as here, aiohttp.ClientSession() as storm:
        engines = [FakeEngine(mode) for mode in modes]
        for engine in engines:
            await engine.__aenter__()
            engine.go.set()
        await here.table(*engines)

        async def one(number):
            timeout = aiohttp.ClientTimeout(0.02 if number % 3 == 0 else 60)
            data = json.dumps({"prompt": "x" * number, "stream": number % 2 == 0})
            try:
                async with storm.post(
                    f"{here.url}/v1/completions", data=data, timeout=timeout
                ) as answer:
                    await answer.read()
            except (TimeoutError, aiohttp.ClientError):
                pass

        asking = [asyncio.create_task(one(number)) for number in range(150)]
        for number in range(5):
            await here.table(*engines[number % 3 :])
            await asyncio.sleep(0.01)
        await asyncio.gather(*asking)
        await here.until(
            lambda: (
                here.stats.in_flight
                == here.stats.held
                == here.router.forwarder.record.load.level
                == 0
            ),
            "nothing is left",
        )
        assert all(one.in_flight == 0 for one in here.stats.revisions)
        assert all(one.work == 0 for one in here.router.forwarder.fleet.replicas.values())
        for engine in engines:
            await engine.__aexit__()
