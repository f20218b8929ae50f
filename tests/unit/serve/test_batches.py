"""Files and batches on a folder: what clients see, whoever falls in between."""

import asyncio
import json
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drakkar_workers.serve.batch import lines
from drakkar_workers.serve.batch.batches import WINDOW_SECONDS, BatchStore, Results, unfinished
from drakkar_workers.serve.batch.files import FileStore
from drakkar_workers.serve.batch.runner import PRIORITY, Runner
from drakkar_workers.serve.server.errors import ApiError, unavailable

CHAT = "/v1/chat/completions"


def request(custom_id, **changes):
    line = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": {"n": 1}, **changes}
    return json.dumps(line)


def keep(files, text, purpose="batch"):
    with files.adding() as upload:
        upload.write(text.encode() if isinstance(text, str) else text)
        return upload.keep("in.jsonl", purpose)


def begin(root, *texts, client="ann"):
    files = FileStore(root, client)
    kept = keep(files, "\n".join(texts))
    store = BatchStore(files)
    return store, store.create(client, CHAT, kept.id, {})


class Model:
    """Answers with what it was asked; faults are done before it does."""

    def __init__(self):
        self.asked = []
        self.faults = []

    async def execute(self, client, endpoint, body):
        await asyncio.sleep(0)
        if self.faults and (fault := self.faults.pop(0)) is not None:
            raise fault
        self.asked.append(body)
        return {"id": "chatcmpl-1", "of": client, "endpoint": endpoint, "asked": body}


def runner(root, model, **options):
    return Runner(root, model.execute, stopping=options.pop("stopping", lambda: False), **options)


async def until_ended(store, batch, *runners, seconds=20):
    tasks = [asyncio.create_task(one.run()) for one in runners]
    try:
        async with asyncio.timeout(seconds):
            while store.find(batch.id).ended_at is None:
                await asyncio.sleep(0.01)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return store.find(batch.id)


def result(store, name):
    return [json.loads(line) for line in store.files.content(name).read_text().splitlines()]


def test_a_file_is_there_once_it_is_kept(tmp_path):
    files = FileStore(tmp_path, "ann")
    with pytest.raises(OSError, match="boom"), files.adding() as upload:
        upload.write(b"half")
        raise OSError("boom")
    assert files.all() == []
    kept = keep(files, "hello")
    assert files.all() == [kept]
    assert files.content(kept.id).read_text() == "hello"
    assert sorted(path.name for path in files.home.glob("files/*")) == [kept.id, f"{kept.id}.json"]
    files.delete(kept.id)
    assert list(files.home.glob("files/*")) == []


@pytest.mark.parametrize("name", ["../../x", "file-1", "/etc/passwd", "file-" + "0" * 32, ""])
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    files = FileStore(tmp_path, "ann")
    for call in (files.find, files.content, files.delete, BatchStore(files).find):
        with pytest.raises(ApiError) as error:
            call(name)
        assert error.value.status == 404


def test_a_client_sees_its_own_only(tmp_path):
    store, batch = begin(tmp_path, request("a"))
    other = FileStore(tmp_path, "../ann")
    assert other.all() == [] and BatchStore(other).all() == []
    with pytest.raises(ApiError):
        other.find(store.files.all()[0].id)
    with pytest.raises(ApiError):
        BatchStore(other).find(batch.id)
    assert other.home.parent == tmp_path


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "no requests"),
        ("\n \n", 1, "no requests"),
        ("{", 1, "not JSON"),
        ("[" * 100_000, 1, "not JSON"),
        (b"\xff\xfe", 1, "not JSON"),
        ("[]", 1, "not a JSON object"),
        (request("a") + "\n" + request("a"), 2, "used twice"),
        (request(""), 1, "custom_id"),
        (request(7), 1, "custom_id"),
        (request("a", method="GET"), 1, "method must be POST"),
        (request("a", url="/v1/files"), 1, f"url must be {CHAT}"),
        (request("a", body="x"), 1, "body must be"),
        (request("a", body={"stream": True}), 1, "streamed"),
        ("\n" + "x" * (lines.LINE_LIMIT_BYTES + 1), 2, "longer than"),
    ],
)
def test_a_wrong_input_names_the_line(tmp_path, text, line, words):
    path = tmp_path / "in"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    _, (error,) = lines.check(path, CHAT)
    assert error["line"] == line
    assert words in error["message"]


def test_errors_are_shown_up_to_a_number(tmp_path):
    path = tmp_path / "in"
    path.write_text("{\n" * 5000)
    _, errors = lines.check(path, CHAT)
    assert len(errors) == lines.ERRORS_SHOWN


async def test_answers_and_errors_have_their_files(tmp_path):
    store, batch = begin(tmp_path, request("a"), "", request("b", body={"priority": 5}))
    model = Model()
    model.faults = [ApiError("wrong", param="n")]
    ended = await until_ended(store, batch, runner(tmp_path, model, concurrency=1))
    body = ended.body()
    assert body["status"] == "completed" and body["completed_at"] == ended.ended_at
    assert body["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    (good,) = result(store, ended.output_file_id)
    assert good["custom_id"] == "b"
    assert good["response"]["status_code"] == 200
    assert good["response"]["body"]["of"] == "ann"
    (bad,) = result(store, ended.error_file_id)
    assert (bad["custom_id"], bad["response"]["status_code"]) == ("a", 400)
    assert bad["response"]["body"]["error"]["param"] == "n"
    assert model.asked == [{"priority": 5}], "what a request says of its priority holds"
    assert store.files.find(ended.output_file_id).purpose == "batch_output"
    assert unfinished(tmp_path, set()) == []


async def test_a_busy_model_is_asked_again_and_the_last_in_line(tmp_path):
    store, batch = begin(tmp_path, request("a"))
    model = Model()
    busy = unavailable("loading")
    busy.retry_after = 0
    model.faults = [busy, busy]
    ended = await until_ended(store, batch, runner(tmp_path, model))
    assert ended.completed == 1 and ended.failed == 0
    assert model.asked == [{"n": 1, "priority": PRIORITY}]


async def test_a_wrong_input_fails_the_batch(tmp_path):
    store, batch = begin(tmp_path, request("a"), "{")
    ended = await until_ended(store, batch, runner(tmp_path, Model()))
    body = ended.body()
    assert body["status"] == "failed" and body["failed_at"]
    assert body["errors"]["data"][0]["line"] == 2
    assert ended.output_file_id is None


async def test_an_input_that_was_deleted_fails_the_batch(tmp_path):
    store, batch = begin(tmp_path, request("a"))
    store.files.delete(batch.input_file_id)
    ended = await until_ended(store, batch, runner(tmp_path, Model()))
    assert ended.status == "failed"
    assert batch.input_file_id in ended.errors[0]["message"]


async def test_a_cancelled_batch_keeps_what_it_has(tmp_path):
    store, batch = begin(tmp_path, *(request(str(i)) for i in range(50)))
    model = Model()

    async def execute(client, endpoint, body):
        if len(model.asked) == 3:
            store.cancel(batch.id)
            assert store.find(batch.id).body(cancelling=True)["status"] == "cancelling"
        return await model.execute(client, endpoint, body)

    one = Runner(tmp_path, execute, stopping=lambda: False, concurrency=1)
    ended = await until_ended(store, batch, one)
    assert ended.status == "cancelled"
    assert [line["custom_id"] for line in result(store, ended.output_file_id)] == list("0123")
    assert ended.error_file_id is None


async def test_what_is_late_is_given_up_by_name(tmp_path):
    store, batch = begin(tmp_path, request("a"), request("b"))
    old = int(time.time()) - WINDOW_SECONDS - 1
    store.write(replace(batch, status="in_progress", total=2, created_at=old))
    ended = await until_ended(store, batch, runner(tmp_path, Model()))
    assert ended.status == "expired"
    given_up = result(store, ended.error_file_id)
    assert [(line["custom_id"], line["error"]["code"]) for line in given_up] == [
        ("a", "batch_expired"),
        ("b", "batch_expired"),
    ]


async def test_two_replicas_never_work_on_one_batch(tmp_path):
    store, batch = begin(tmp_path, *(request(str(i)) for i in range(40)))
    _, second = begin(tmp_path, *(request(str(i)) for i in range(40)), client="bob")
    models = Model(), Model()
    ended = await until_ended(store, batch, *(runner(tmp_path, one) for one in models))
    assert ended.completed == 40
    names = [line["custom_id"] for line in result(store, ended.output_file_id)]
    assert sorted(names, key=int) == [str(i) for i in range(40)]
    other = BatchStore(FileStore(tmp_path, "bob"))
    assert (await until_ended(other, second, runner(tmp_path, Model()))).completed == 40
    assert sum(len(one.asked) for one in models) >= 40


async def test_a_batch_is_laid_aside_when_the_server_is_drained(tmp_path):
    store, batch = begin(tmp_path, *(request(str(i)) for i in range(20)))
    model = Model()
    leaving = runner(tmp_path, model, stopping=lambda: len(model.asked) >= 5, concurrency=2)
    async with asyncio.timeout(20):
        await leaving.run()
    half = store.find(batch.id)
    assert half.status == "in_progress" and 5 <= half.completed < 20
    after = Model()
    ended = await until_ended(store, batch, runner(tmp_path, after))
    assert ended.completed == 20
    assert len(model.asked) + len(after.asked) == 20, "nothing is asked twice"


@given(cut=st.integers(0, 4000), stage=st.sampled_from(["output", "adopted", "described"]))
@settings(max_examples=60, deadline=None)
def test_a_fall_at_any_byte_loses_and_doubles_nothing(tmp_path_factory, cut, stage):
    """kill -9 leaves a line cut off, or files that are made but not yet told of."""
    root = tmp_path_factory.mktemp("fall")
    store, batch = begin(root, *(request(str(i)) for i in range(10)))
    store.write(replace(batch, status="in_progress", total=10))
    results = Results(store.place(batch.id))
    for i in range(10 if stage != "output" else 6):
        results.add("output", str(i), {"custom_id": str(i), "pad": "x" * 30})
    if stage == "output":
        path = store.place(batch.id) / "output.jsonl"
        path.write_bytes(path.read_bytes()[:cut])
    else:
        store.write(replace(store.find(batch.id), status="finalizing", ends_as="completed",
                            completed=10))  # fmt: skip
        results.adopt(batch, store.files)
        if stage == "adopted":
            (store.files.home / "files" / f"{batch.file_name('output')}.json").unlink()
    ended = asyncio.run(until_ended(store, batch, runner(root, Model())))
    assert (ended.status, ended.completed, ended.failed) == ("completed", 10, 0)
    names = [line["custom_id"] for line in result(store, ended.output_file_id)]
    assert sorted(names) == [str(i) for i in range(10)]
