"""API keys: who is known, what is left of limits, and changes of the file."""

import asyncio
import json

import pytest

from drakkar_workers.errors import ConfigError
from drakkar_workers.serve.server.errors import ApiError
from drakkar_workers.serve.server.limits import Clients, Key, follow_keys, read_keys


def header(key):
    return f"Bearer {key}"


def write(path, *keys):
    fresh = path.with_suffix(".fresh")
    fresh.write_text(json.dumps({"keys": [key.model_dump() for key in keys]}))
    fresh.rename(path)


A, B = Key(name="a", key="aaaaaaaa", requests_per_minute=1), Key(name="b", key="bbbbbbbb")


def test_a_change_of_keys_lets_in_and_locks_out():
    clients = Clients([A])
    clients.replace([B])
    assert clients.find(header(B.key)).name == "b"
    with pytest.raises(ApiError) as refused:
        clients.find(header(A.key))
    assert refused.value.status == 401


def test_what_a_key_has_used_outlives_a_change_of_others():
    clients = Clients([A], clock=lambda: 0.0)
    clients.find(header(A.key)).admit(1)
    clients.replace([B, A])
    with pytest.raises(ApiError) as refused:
        clients.find(header(A.key)).admit(1)
    assert refused.value.status == 429


def test_a_limit_that_has_changed_counts_anew():
    clients = Clients([A], clock=lambda: 0.0)
    clients.find(header(A.key)).admit(1)
    clients.replace([A.model_copy(update={"requests_per_minute": 2})])
    clients.find(header(A.key)).admit(1)


async def test_a_changed_file_is_taken_and_a_broken_one_is_not(tmp_path, caplog):
    path = tmp_path / "keys.json"
    write(path, A)
    clients = Clients(read_keys(path))
    following = asyncio.create_task(follow_keys(path, clients, period=0.005))

    async def until(condition):
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.005)

    def known(key):
        try:
            return clients.find(header(key.key)) is not None
        except ApiError:
            return False

    await asyncio.sleep(0)  # It has seen the file as it was.
    write(path, B)
    await until(lambda: known(B) and not known(A))
    path.write_text("{")
    await until(lambda: "the API keys stay as they are" in caplog.text)
    assert known(B)
    write(path, A)
    await until(lambda: known(A))
    following.cancel()


def test_a_wrong_file_is_told_without_its_keys(tmp_path):
    path = tmp_path / "keys.json"
    path.write_text('{"keys": [{"name": "a", "key": "secret"}]}')
    with pytest.raises(ConfigError) as error:
        read_keys(path)
    assert "keys.0.key" in str(error.value)
    assert "secret" not in str(error.value)
