"""Every page in a real browser before axe, light, dark and on a phone; and by the keyboard alone."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, async_playwright, expect

from support import fake_kube, served
from support.browser import chromium
from support.server_world import ADMIN, World, world

PATIENCE = 120_000
"""Milliseconds that the browser waits for something to appear."""
PAGES = (
    "/", "/jobs", "/jobs/ann/gpt", "/jobs/new", "/history", "/compare?job=ann/gpt", "/queues", "/nodes",
    "/services", "/services/ann/gpt", "/services/ann/gpt/chat", "/services/new?namespace=ann&job=gpt",
    "/usage", "/settings", "/jobs/ann/none",
)  # fmt: skip
LOOKS: tuple[dict[str, Any], ...] = (
    {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    {"color_scheme": "light", "viewport": {"width": 390, "height": 800}},
)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    """A cluster in which there is something of everything."""
    async with world(tmp_path) as found:
        for index in range(2):
            found.kube.put("nodes", fake_kube.node(f"node-{index}"))
        served.put(found)
        storage = {"persistentVolumeClaim": {"claimName": "runs"}}
        found.job(
            "gpt", status={
                "phase": "Running", "progress": {"step": 5, "totalSteps": 9, "loss": 2.0},
                "placement": {"level": "rack", "domain": "r", "nodes": ["node-0", "node-1"]},
                "checkpoints": [{"step": 5, "path": "/checkpoints/step-5", "time": served.SINCE}],
            },
            checkpoint={"everySteps": 5, "storage": storage},
        )  # fmt: skip
        found.job("waits", status={"phase": "Pending", "pendingReason": "needs 8 gpu, free are 4"})
        await found.sees("ann/waits")
        yield found


@asynccontextmanager
async def signed_in(here: World, **look: Any) -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        # axe is brought into the page by the test; the pages' own scripts obey the policy elsewhere.
        context = await browser.new_context(**look, bypass_csp=True)
        page = await context.new_page()
        page.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        await page.goto(f"{here.url}/login")
        await page.fill("[name=token]", ADMIN)
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{here.url}/")
        yield page
        await browser.close()


@pytest.mark.parametrize("look", LOOKS, ids=["light", "dark", "phone"])
async def test_no_page_has_what_axe_objects_to(here: World, look: dict[str, Any]) -> None:
    found: dict[str, Any] = {}
    async with signed_in(here, **look) as page:
        for path in PAGES:
            await page.goto(f"{here.url}{path}")
            if path == "/services/ann/gpt":
                await expect(page.locator("#by-replica")).to_be_visible()
            results = await Axe().run(page)
            for violation in results.response["violations"]:
                nodes = [node["html"][:200] for node in violation["nodes"][:3]]
                found[f"{path} {violation['id']}"] = [violation["help"], *nodes]
            wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
            if wide > 0:
                found[f"{path} width"] = [f"{wide} pixels wider than the window"]
    assert not found, json.dumps(found, indent=2)


async def test_a_service_is_tried_by_the_keyboard_alone(here: World) -> None:
    async with signed_in(here) as page:
        await page.keyboard.press("g")
        await page.keyboard.press("s")
        await page.wait_for_url(f"{here.url}/services")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.className") == "skip"
        await page.keyboard.press("Enter")
        link = page.locator("#services a", has_text="Try it")
        for _ in range(30):
            if await link.evaluate("each => each === document.activeElement"):
                break
            await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{here.url}/services/ann/gpt/chat")
        await expect(page.locator("#chat-text")).to_be_focused()
        await page.keyboard.type("Hi <img src=x onerror=alert(1)>")
        await page.keyboard.press("Enter")
        await expect(page.locator("#chat-state")).to_contain_text("3 tokens in")
        await expect(page.locator(".turn-assistant div")).to_have_text(
            "Hi <img src=x onerror=alert(1)>"
        )
        assert await page.locator(".chat img").count() == 0
        await expect(page.locator("#chat-text")).to_be_focused()
