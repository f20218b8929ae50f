"""Files and batches through the official client, and a server that dies in the middle of a batch."""

import io
import json
import time

import openai
import pytest

from support.serving import DEADLINE, Server

CHAT = "/v1/chat/completions"
KEYS = {"keys": [{"name": name, "key": f"{name}-secret"} for name in ("ann", "bob")]}


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batches")
    (folder / "keys.json").write_text(json.dumps(KEYS))
    return ("--name", "tiny", "--cache-gib", "0.01", "--api-keys", folder / "keys.json",
            "--files", folder / "files", "--threads", "1")  # fmt: skip


@pytest.fixture(scope="module")
def shared(tiny, arguments):
    with Server(tiny, *arguments) as server:
        yield server.started()


def client_of(server, name):
    return openai.OpenAI(
        base_url=f"{server.url}/v1", api_key=f"{name}-secret", max_retries=0, timeout=60
    )


def lines(count, **body):
    return [
        {"custom_id": f"r{i}", "method": "POST", "url": CHAT, "body": {
            "messages": [{"role": "user", "content": f"Hello {i}"}], "max_tokens": 4, **body}}
        for i in range(count)
    ]  # fmt: skip


def upload(client, requests):
    text = "\n".join(json.dumps(one) for one in requests)
    return client.files.create(purpose="batch", file=("in.jsonl", io.BytesIO(text.encode())))


def begin(client, file):
    return client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")


def ended(client, batch):
    deadline = time.monotonic() + DEADLINE
    while (found := client.batches.retrieve(batch.id)).status in (
        "validating", "in_progress", "finalizing", "cancelling"
    ):  # fmt: skip
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    return found


def test_files_come_and_go(shared):
    client = client_of(shared, "ann")
    file = upload(client, lines(1))
    assert client.files.retrieve(file.id).filename == "in.jsonl"
    assert file.id in [one.id for one in client.files.list(purpose="batch")]
    assert json.loads(client.files.content(file.id).text) == lines(1)[0]
    with pytest.raises(openai.NotFoundError):
        client_of(shared, "bob").files.retrieve(file.id)
    assert list(client_of(shared, "bob").files.list()) == []
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.content(file.id)
    with pytest.raises(openai.BadRequestError, match="purpose must be one of"):
        client.files.create(purpose="vision", file=b"x")


def test_a_batch_answers_as_the_api_does(shared):
    client = client_of(shared, "ann")
    requests = lines(3, temperature=0)
    requests[1]["body"]["temperature"] = 9
    found = ended(client, begin(client, upload(client, requests)))
    assert found.status == "completed"
    assert (found.request_counts.total, found.request_counts.failed) == (3, 1)
    output = client.files.content(found.output_file_id).text.splitlines()
    told = {one["custom_id"]: one["response"]["body"] for one in map(json.loads, output)}
    for number in (0, 2):
        alone = client.chat.completions.create(model="tiny", **requests[number]["body"])
        assert told[f"r{number}"]["choices"][0]["message"]["content"] == (
            alone.choices[0].message.content
        )
    (error,) = map(json.loads, client.files.content(found.error_file_id).text.splitlines())
    assert error["custom_id"] == "r1"
    assert error["response"]["body"]["error"]["param"] == "temperature"


def test_a_batch_outlives_the_server_that_works_on_it(tiny, arguments):
    with Server(tiny, *arguments, "--batch-concurrency", "2") as first:
        client = client_of(first.started(), "ann")
        batch = begin(client, upload(client, lines(40, max_tokens=64, ignore_eos=True)))
        first.until(
            lambda: client.batches.retrieve(batch.id).request_counts.completed > 0,
            "some are answered",
        )
        first.process.kill()
        first.process.wait()
    with Server(tiny, *arguments) as second:
        client = client_of(second.started(), "ann")
        found = ended(client, batch)
        assert found.status == "completed"
        output = client.files.content(found.output_file_id).text.splitlines()
        names = sorted(json.loads(line)["custom_id"] for line in output)
        assert names == sorted(f"r{i}" for i in range(40))


def test_without_a_folder_files_are_off(server):
    status, answer = server.send("/v1/files")
    assert status == 501
    assert "--files" in answer["error"]["message"]
