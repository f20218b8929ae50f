"""What users may not see is not told, by any way of asking."""

import httpx
import pytest

from support.server_world import ADMIN, ANN, BEN, World

READS = (
    "/api/v1/jobs/ann/secret",
    "/api/v1/jobs/ann/secret/stream",
)


async def test_without_a_token_nothing_is_answered(here: World) -> None:
    for path in ("/api/v1/jobs", "/api/v1/me", "/api/v1/overview", "/api/v1/jobs/stream", *READS):
        for token in (None, "forged", "x" * 20_000):
            answer = await here.client(token).get(path)
            assert answer.status_code == 401, path
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["www-authenticate"] == "Bearer"


async def test_lists_hold_only_namespaces_that_the_user_may_list(here: World) -> None:
    here.job("secret", "ann")
    here.job("open", "ben")
    await here.sees("ann/secret")
    await here.sees("ben/open")
    for token, names in ((ADMIN, {"secret", "open"}), (ANN, {"secret"}), (BEN, {"open"})):
        for query in ("", "?search=e", "?namespace=ann", "?namespace=ben"):
            answer = (await here.client(token).get(f"/api/v1/jobs{query}")).json()
            found = {item["name"] for item in answer["items"]}
            assert found <= names
            assert answer["total"] == len(found)
            if not query:
                assert found == names


@pytest.mark.parametrize("path", READS)
async def test_a_job_of_another_is_as_one_that_does_not_exist(here: World, path: str) -> None:
    here.job("secret", "ann")
    await here.sees("ann/secret")
    other = await here.client(BEN).get(path)
    missing = await here.client(BEN).get(path.replace("secret", "nothing"))
    assert other.status_code == missing.status_code == 404
    assert other.json()["detail"] == missing.json()["detail"].replace("nothing", "secret")


async def test_a_stream_of_all_tells_nothing_of_others(here: World) -> None:
    async with here.client(BEN).stream("GET", "/api/v1/jobs/stream") as answer:
        lines = answer.aiter_lines()
        assert (await anext(lines)).startswith(":")
        here.job("secret", "ann")
        await here.sees("ann/secret")
        here.job("open", "ben")
        seen = ""
        while "open" not in seen:
            seen += await anext(lines)
        assert "secret" not in seen


async def test_a_token_that_expires_ends_what_it_allowed(here: World) -> None:
    client = here.client(ANN)
    assert (await client.get("/api/v1/me")).json()["name"] == "ann"
    here.kube.forget(ANN)
    assert (await client.get("/api/v1/me")).status_code == 401


@pytest.mark.parametrize("path", ["/api/v1/jobs/ann/..%2F..%2Fsecrets", "/api/v1/jobs/a%00b/c"])
async def test_names_lead_nowhere_else(here: World, path: str) -> None:
    before = len(here.kube.requests)
    answer = await here.client().get(path)
    assert answer.status_code in (404, 422)
    assert not any("secrets" in path for _, path in here.kube.requests[before:])


async def test_answers_say_how_browsers_must_treat_them(here: World) -> None:
    answer = await here.client(None).get("/healthz")
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


async def test_a_body_that_is_too_large_is_refused(here: World) -> None:
    async def body() -> object:
        for _ in range(40):
            yield b"x" * (1 << 16)

    try:
        answer = await here.client().post("/api/v1/jobs", content=body())  # type: ignore[arg-type]
    except httpx.WriteError:
        # The server hung up in the middle, as it may.
        return
    assert answer.status_code == 413
