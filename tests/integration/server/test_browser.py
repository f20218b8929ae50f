"""The pages in a real browser: submit, watch it move, see what happened, delete."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.async_api import Browser, Page, async_playwright, expect

from support import fake_kube
from support.browser import chromium
from support.server_world import ADMIN, World, world

PATIENCE = 120_000
"""Milliseconds that the browser waits for something to appear."""
JOBS = "trainingjobs.drakkar.dev"


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    """The server under test."""
    async with world(tmp_path) as found:
        yield found


@pytest.fixture
async def page(here: World) -> AsyncIterator[Page]:
    """A signed-in browser, in which nothing may go wrong unseen."""
    async with async_playwright() as playwright:
        browser: Browser = await playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = await browser.new_page()
        page.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console", lambda m: problems.append(m.text) if "Content Security" in m.text else None
        )
        page.on("dialog", lambda dialog: dialog.accept())
        await page.goto(f"{here.url}/login")
        await page.fill("[name=token]", ADMIN)
        await page.click("form.stack button")
        await page.wait_for_url(f"{here.url}/")
        yield page
        await browser.close()
        assert problems == []


def status(step: int, **more: Any) -> dict[str, Any]:
    progress = {"step": step, "totalSteps": 100, "loss": 5.0 - step / 50, "tokensPerSecond": 1000.0}
    placement = {"level": "rack", "domain": "r0", "nodes": ["node-0", "node-1"]}
    return {"phase": "Running", "progress": progress, "placement": placement, **more}


async def test_submit_watch_and_understand(here: World, page: Page) -> None:
    for index in range(2):
        here.kube.put("nodes", fake_kube.node(f"node-{index}"))
    manifest = fake_kube.training_job("gpt", namespace="ann")
    await page.goto(f"{here.url}/jobs/new")
    await page.fill("[name=manifest]", "kind: Pod")
    await expect(page.locator("#plan")).to_contain_text("Submit a TrainingJob")
    await page.fill("[name=manifest]", yaml.safe_dump(manifest))
    await page.click("form.stack button")
    await page.wait_for_url(f"{here.url}/jobs/ann/gpt")

    # What the operator and the trainer tell arrives without loading the page again.
    for step in (1, 7):
        here.job("gpt", status=status(step))
        await expect(page.locator("#step")).to_contain_text(f"{step} of 100")
    await expect(page.locator("[data-metric=loss] canvas")).to_be_visible()
    await expect(page.locator(".map")).to_contain_text("node-1")
    cause = {"id": "r", "time": "2026-01-01T00:00:00Z", "scope": "pod", "reason": "PodDeleted",
             "message": "<b>pod gpt-1</b> was deleted", "replica": 1}  # fmt: skip
    here.job("gpt", status=status(8, restarts=[cause]))
    await expect(page.locator("#restarts")).to_contain_text("<b>pod gpt-1</b> was deleted")

    await page.click("text=Delete")
    await expect(page.locator("#notice")).to_contain_text("gpt is deleted")
    assert (JOBS, "ann", "gpt") not in here.kube.objects
    live = here.app.state.context.live
    await here.until(lambda: "ann/gpt" not in live.jobs.items, "the deletion is seen")
    client = here.client()
    while not (await client.get("/api/v1/history/jobs/ann/gpt")).json()["restarts"]:
        await asyncio.sleep(0.1)
    await page.goto(f"{here.url}/jobs/ann/gpt")
    await expect(page.locator("main")).to_contain_text("no longer in the cluster")
    await expect(page.locator("#restarts")).to_contain_text("PodDeleted")


async def test_ticked_jobs_are_suspended_together(here: World, page: Page) -> None:
    for name in ("a", "b", "c"):
        here.job(name, status={"phase": "Running"})
    await here.sees("ann/c")
    await page.goto(f"{here.url}/jobs")
    for name in ("a", "b"):
        await page.check(f"input[value='ann/{name}']")
    await page.click("#bulk button[value=suspend]")
    await expect(page.locator("#notice")).to_contain_text("ann/a: a saves its state")
    await expect(page.locator("#notice")).to_contain_text("ann/b: b saves its state")
    suspended = {raw["metadata"]["name"]: raw["spec"].get("suspend") for raw in here.kube.all(JOBS)}
    assert suspended == {"a": True, "b": True, "c": None}
