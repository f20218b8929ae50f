"""Start, cancellation, limits, adapters, drain and death of a server."""

import http.client
import json
import os
import signal
import threading

import pytest

from support.serving import DEADLINE, Server
from support.tiny_models import save_adapter

LONG = {"prompt": "x", "max_tokens": 500, "ignore_eos": True, "stream": True}


def open_stream(server, body=LONG, headers=None):
    """A stream whose first event has come."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)
    connection.request("POST", "/v1/completions", json.dumps(body), headers or {})
    answer = connection.getresponse()
    assert answer.status == 200
    return connection, answer, answer.readline()


def test_who_leaves_is_served_no_more(server):
    aborted = server.metric("vllm:request_success_total")
    connection, _answer, first = open_stream(server)
    assert first.startswith(b"data: {")
    connection.close()
    server.until(lambda: server.metric("vllm:num_requests_running") == 0, "the request is dropped")
    assert server.metric("vllm:request_success_total") == aborted + 1


def test_running_streams_end_before_a_drained_server_does(tiny):
    with Server(tiny, "--drain-delay", "1", "--cache-gib", "0.01") as server:
        server.started()
        answers = []

        def read():
            _connection, answer, first = open_stream(server)
            answers.append(first + answer.read())

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        server.until(lambda: server.metric("vllm:num_requests_running") > 0, "streams run")
        server.terminate()
        for thread in threads:
            thread.join(DEADLINE)
        assert server.process.wait(DEADLINE) == 0
        assert len(answers) == 3
        for answer in answers:
            assert answer.endswith(b"data: [DONE]\n\n")
            assert b'"finish_reason":"length"' in answer


def test_a_drained_server_is_not_ready(tiny):
    with Server(tiny, "--drain-delay", "30", "--cache-gib", "0.01") as server:
        server.started()
        assert server.send("/health")[0] == 200
        server.terminate()
        server.until(lambda: server.send("/health")[0] == 503, "it is not ready")
        assert server.send("/livez")[0] == 200
        # Load balancers learn late: what still comes is served.
        assert server.send("/v1/completions", {"prompt": "x", "max_tokens": 1})[0] == 200


def test_a_dead_engine_ends_the_server_and_every_stream_says_so(tiny):
    with Server(tiny, "--cache-gib", "0.01") as server:
        server.started()
        body = {**LONG, "n": 4}
        _connection, answer, _first = open_stream(server, body)
        os.kill(server.engine_pid(), signal.SIGKILL)
        rest = answer.read()
        assert b'"type":"server_error"' in rest
        assert not rest.endswith(b"[DONE]\n\n")
        assert server.process.wait(DEADLINE) == 1


def test_a_stopped_engine_is_never_ready(tiny):
    """An engine that hangs is silent, and silence is seen."""
    with Server(tiny, "--cache-gib", "0.01", "--silence", "2") as server:
        server.started()
        pid = server.engine_pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            server.until(lambda: server.send("/health")[0] == 503, "it is not ready")
            assert server.send("/livez")[0] == 503
            assert server.send("/v1/completions", {"prompt": "x"})[0] == 503
        finally:
            os.kill(pid, signal.SIGCONT)
        server.until(lambda: server.send("/health")[0] == 200, "it is ready again")


def test_a_request_that_takes_too_long(tiny):
    with Server(tiny, "--cache-gib", "0.01", "--timeout", "0.001") as server:
        server.started()
        body = {"prompt": "x", "max_tokens": 500, "ignore_eos": True}
        status, answer = server.send("/v1/completions", body)
        assert (status, answer["error"]["code"]) == (504, "timeout")
        server.until(lambda: server.metric("vllm:num_requests_running") == 0, "nothing runs")


def test_a_full_queue_asks_to_come_again(tiny):
    limits = ("--max-sequences", "1", "--max-waiting", "1", "--cache-gib", "0.01")
    with Server(tiny, *limits) as server:
        server.started()
        # Eight choices are eight requests that come at once.
        crowd = {"prompt": "x", "max_tokens": 100, "ignore_eos": True, "n": 8}
        status, answer = server.send("/v1/completions", crowd)
        assert (status, answer["error"]["code"]) == (429, "queue_full")
        server.until(lambda: server.metric("vllm:num_requests_running") == 0, "nothing runs")
        assert server.send("/v1/completions", {"prompt": "x", "max_tokens": 1})[0] == 200


@pytest.fixture(scope="module")
def keyed(tiny, tmp_path_factory):
    """A server with keys and with a folder of adapters."""
    folder = tmp_path_factory.mktemp("keyed")
    keys = [
        {"name": "free", "key": "free-secret"},
        {"name": "few", "key": "few-secret", "requests_per_minute": 2},
        {"name": "short", "key": "short-secret", "tokens_per_minute": 30},
    ]
    (folder / "keys.json").write_text(json.dumps({"keys": keys}))
    adapters = folder / "adapters"
    adapters.mkdir()
    save_adapter(adapters / "poet")
    save_adapter(folder / "outside")
    arguments = ("--api-keys", folder / "keys.json", "--adapters", adapters, "--name", "tiny")
    with Server(tiny, *arguments, "--cache-gib", "0.01") as server:
        server.started()
        server.wait_for("adapter poet is loaded")
        yield server


def ask(server, key, **fields):
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    body = {"prompt": "x", "max_tokens": 1, **fields}
    return server.send("/v1/completions", body, headers=headers)


def test_keys(keyed):
    assert ask(keyed, "free-secret")[0] == 200
    for wrong in ("", "other-secret"):
        status, answer = ask(keyed, wrong)
        assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
    assert keyed.send("/health")[0] == 200
    assert keyed.send("/v1/models")[0] == 401
    assert not any("secret" in line for line in keyed.log)


def test_limits_of_keys(keyed):
    assert [ask(keyed, "few-secret")[0] for _ in range(3)] == [200, 200, 429]
    first = ask(keyed, "short-secret", max_tokens=40, ignore_eos=True)
    assert first[0] == 200
    status, answer = ask(keyed, "short-secret")
    assert status == 429
    assert "30 tokens per minute" in answer["error"]["message"]
    assert ask(keyed, "free-secret")[0] == 200


def test_adapters_by_name(keyed):
    def models():
        headers = {"Authorization": "Bearer free-secret"}
        return [one["id"] for one in keyed.send("/v1/models", headers=headers)[1]["data"]]

    def load(action, **body):
        headers = {"Authorization": "Bearer free-secret"}
        return keyed.send(f"/v1/{action}_lora_adapter", body, headers=headers)

    fixed = {"max_tokens": 12, "temperature": 0, "ignore_eos": True}
    assert models() == ["tiny", "poet"]
    plain = ask(keyed, "free-secret", **fixed)[1]["choices"][0]["text"]
    poet = ask(keyed, "free-secret", model="poet", **fixed)[1]["choices"][0]["text"]
    assert poet != plain
    assert load("unload", lora_name="poet")[0] == 200
    assert models() == ["tiny"]
    assert ask(keyed, "free-secret", model="poet")[0] == 404
    assert load("load", lora_name="again", lora_path="poet")[0] == 200
    assert ask(keyed, "free-secret", model="again", **fixed)[1]["choices"][0]["text"] == poet
    for path in ("../outside", "/etc", "missing"):
        assert load("load", lora_name="bad", lora_path=path)[0] == 400
    assert load("load", lora_name="again", lora_path="poet")[0] == 400
    assert load("load", lora_name="tiny", lora_path="poet")[0] == 400


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "neither model.safetensors"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer.json"),
        (lambda folder: (folder / "chat_template.jinja").write_text("{% if"), "chat template"),
    ],
    ids=["config", "weights", "tokenizer", "template"],
)
def test_a_model_that_can_not_be_served_says_why(change, message, tiny, tmp_path):
    for path in tiny.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    change(tmp_path)
    with Server(tmp_path) as server:
        assert server.process.wait(DEADLINE) in (1, 2)
        server.until(lambda: message in "".join(server.log), message)
