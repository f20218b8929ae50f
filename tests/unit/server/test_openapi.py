"""Whatever is sent to the API, it never fails by itself: schemathesis over the whole OpenAPI."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from support.server_world import ADMIN, world

STREAMS = ("/stream",)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server in a thread of its own, with a job."""
    found: list[str] = []
    ready, stop = Event(), Event()

    async def serve(folder: Path) -> None:
        async with world(folder) as here:
            here.job("one", status={"phase": "Running", "progress": {"step": 1, "totalSteps": 2}})
            await here.sees("ann/one")
            found.append(here.url)
            ready.set()
            await asyncio.to_thread(stop.wait)

    folder = tmp_path_factory.mktemp("server")
    thread = Thread(target=lambda: asyncio.run(serve(folder)), daemon=True)
    thread.start()
    assert ready.wait(60)
    yield found[0]
    stop.set()
    thread.join(30)


def test_no_request_makes_it_fail(url: str) -> None:
    headers = {"Authorization": f"Bearer {ADMIN}"}
    document = httpx.get(f"{url}/api/v1/openapi.json", headers=headers).json()
    schema = schemathesis.openapi.from_dict(document)
    operations = [
        found.ok() for found in schema.get_all_operations() if not found.ok().path.endswith(STREAMS)
    ]
    assert len(operations) > 20
    for operation in operations:
        _ask(operation, url, headers)


def _ask(operation: Any, url: str, headers: dict[str, str]) -> None:
    @given(case=operation.as_strategy())
    @settings(
        max_examples=12,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        answer = case.call(base_url=url, headers=headers)
        # 503: the fake cluster has no operator to ask for plans, and says so.
        assert answer.status_code < 500 or answer.status_code == 503, answer.text
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == ["application/problem+json"]

    ask()
