"""The HTTP client against a real socket."""

from collections.abc import AsyncIterator

import pytest

from drakkar.kube.rest import ApiError, Rest
from support.fake_kube import FakeKube, Fault, HttpServer, training_job

JOBS = "/apis/drakkar.dev/v1alpha1/namespaces/default/trainingjobs"
BUSY = ApiError(429, "TooManyRequests", "storage is (re)initializing", retry_after=0.0)


@pytest.fixture
async def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
async def rest(kube: FakeKube) -> AsyncIterator[Rest]:
    async with HttpServer(kube) as server:
        rest = Rest(server.connection, timeout=5.0)
        yield rest
        await rest.close()


async def test_a_read_waits_for_a_server_that_says_when(kube: FakeKube, rest: Rest) -> None:
    kube.faults.append(Fault("GET", JOBS, BUSY, times=2))
    assert (await rest.get(JOBS))["items"] == []


@pytest.mark.parametrize(
    "error",
    [
        ApiError(429, "TooManyRequests", "come later", retry_after=60.0),
        ApiError(429, "TooManyRequests", "who knows when"),
        ApiError(500, "InternalError", "broken", retry_after=0.0),
        ApiError(404, "NotFound", "no such thing"),
    ],
    ids=["too long a wait", "no time", "500", "404"],
)
async def test_other_refusals_are_the_callers(kube: FakeKube, rest: Rest, error: ApiError) -> None:
    kube.faults.append(Fault("GET", JOBS, error, times=1))
    with pytest.raises(ApiError, match=error.message):
        await rest.get(JOBS)
    assert (await rest.get(JOBS))["items"] == []


async def test_a_write_is_never_repeated_unasked(kube: FakeKube, rest: Rest) -> None:
    """The operator slows down all its writes when one is refused: it has to hear of it."""
    kube.faults.append(Fault("POST", JOBS, BUSY, times=1))
    with pytest.raises(ApiError, match="initializing"):
        await rest.post(JOBS, training_job("a"))
