"""Lists are filtered, sorted and cut on the server."""

from hypothesis import given
from hypothesis import strategies as st

from drakkar_server.paging import Cut, page_of
from support.server_world import World

values = st.lists(st.one_of(st.none(), st.integers(-5, 5)), max_size=60)


@given(values, st.integers(1, 10), st.integers(0, 70), st.booleans())
def test_a_page_is_a_part_of_the_sorted_whole(
    found: list[int | None], limit: int, offset: int, descending: bool
) -> None:
    page, total = page_of(found, lambda v: v, Cut(limit, offset), descending=descending)
    known = sorted((v for v in found if v is not None), reverse=descending)
    whole: list[int | None] = [*known, *(None for v in found if v is None)]
    assert page == whole[offset : offset + limit]
    assert total == len(found)


async def test_filters_and_orders(here: World) -> None:
    for index, phase in enumerate(["Running", "Pending", "Running", "Failed"]):
        progress = {"step": index, "totalSteps": 10, "loss": 4.0 - index}
        here.job(
            f"job-{index}", status={"phase": phase, "progress": progress}, queue=f"q{index % 2}"
        )
    await here.sees("ann/job-3")
    client = here.client()

    async def names(query: str) -> list[str]:
        return [
            item["name"] for item in (await client.get(f"/api/v1/jobs?{query}")).json()["items"]
        ]

    assert await names("sort=loss&order=asc") == ["job-3", "job-2", "job-1", "job-0"]
    assert await names("sort=step&order=asc&limit=2&offset=1") == ["job-1", "job-2"]
    assert set(await names("phase=Running")) == {"job-0", "job-2"}
    assert set(await names("phase=Running&phase=Failed&queue=q0")) == {"job-0", "job-2"}
    assert await names("search=JOB-3") == ["job-3"]
    refused = await client.get("/api/v1/jobs?sort=uid&limit=100000")
    assert refused.status_code == 422
    assert {e["field"] for e in refused.json()["errors"]} == {"query.sort", "query.limit"}


async def test_a_job_is_streamed_as_it_changes_and_goes(here: World) -> None:
    here.job("one", status={"phase": "Pending"})
    await here.sees("ann/one")
    async with here.client().stream("GET", "/api/v1/jobs/ann/one/stream") as answer:
        lines = answer.aiter_lines()

        async def until(part: str) -> None:
            while part not in await anext(lines):
                pass

        await until('"phase":"Pending"')
        here.job("one", status={"phase": "Running"})
        await until('"phase":"Running"')
        here.kube.remove("trainingjobs.drakkar.dev", "ann", "one")
        await until("event: gone")


async def test_the_overview_counts_devices_and_waits(here: World) -> None:
    here.job("waits", status={"phase": "Pending"})
    await here.sees("ann/waits")
    found = (await here.client().get("/api/v1/overview")).json()
    assert found["phases"] == {"Pending": 1}
    assert found["waiting"] == 1
    assert found["synced"] is True
