"""The pages in a real browser before a real cluster, by users with real rights."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from playwright.sync_api import Browser, Page, expect, sync_playwright

from drakkar.constants import API_VERSION
from drakkar.local import Cluster
from drakkar.local.install import install
from support.browser import chromium
from support.dashboard import dashboard, token
from support.lab import Lab, pretrain

PATIENCE = 90_000
"""Milliseconds that the browser waits for something to appear."""


@pytest.fixture
def url(cluster: Cluster, lab: Lab, tmp_path: Path) -> Iterator[str]:
    """A server for the session's cluster."""
    with dashboard(cluster, tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


def manifest(lab: Lab, name: str, steps: int) -> str:
    storage = {"persistentVolumeClaim": {"claimName": "runs"}}
    return yaml.safe_dump(
        {
            "apiVersion": API_VERSION,
            "kind": "TrainingJob",
            "metadata": {"name": name, "namespace": lab.namespace},
            "spec": {
                "replicas": 2,
                "recipe": pretrain(steps),
                "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}},
                "checkpoint": {"everySteps": 10, "storage": storage},
            },
        }
    )


def signed_in(page: Page, url: str, secret: str) -> None:
    page.goto(f"{url}/login")
    page.fill("[name=token]", secret)
    page.click("form.stack button")
    page.wait_for_url(f"{url}/")


def test_submit_watch_hurt_and_understand(lab: Lab, url: str, browser: Browser) -> None:
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: dialog.accept())
    signed_in(page, url, token(lab, "ann"))
    page.goto(f"{url}/jobs/new")
    page.fill("[name=manifest]", manifest(lab, "gpt", 100_000))
    expect(page.locator("#plan")).to_contain_text("Would start now")
    page.click("form.stack button.primary")
    page.wait_for_url(f"{url}/jobs/{lab.namespace}/gpt")
    expect(page.locator("#summary")).to_contain_text("Running")
    lab.step("gpt", 5)
    # Progress arrives without anybody loading the page again, as a number and as a curve.
    expect(page.locator("#step")).not_to_contain_text("–")
    expect(page.locator("[data-metric=loss] canvas")).to_be_visible()
    page.select_option("#rank", "1")
    page.click("#open-log")
    expect(page.locator("#log-state")).to_have_text("gpt-1")
    expect(page.locator("#log")).not_to_be_empty()
    lab.delete_pod("gpt-1")
    expect(page.locator("#restarts")).to_contain_text("PodDeleted")
    page.click("text=Delete")
    expect(page.locator("#notice")).to_contain_text("is deleted")
    lab.until(lambda: not lab.pods("gpt"), 120, "the pods are gone")
    assert problems == []


@pytest.fixture
def installed(cluster: Cluster, lab: Lab) -> Iterator[None]:
    """The server by the chart, beside the operator that is there."""
    install(cluster.kubeconfig, server=True)
    yield
    install(cluster.kubeconfig, server=False)


def test_one_command_after_the_installation_opens_the_pages(
    cluster: Cluster, installed: None, browser: Browser
) -> None:
    drakkar = Path(sys.executable).with_name("drakkar")
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
    link = subprocess.run(
        [drakkar, "dashboard"], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(link)
    page.click("form.stack button")
    page.wait_for_function("location.pathname === '/'")
    # The token is not in the address, where it would be seen and kept.
    assert "#" not in page.url
    expect(page.locator("header .user")).to_have_text(
        "system:serviceaccount:drakkar-system:dashboard"
    )
    page.goto(page.url + "nodes")
    expect(page.locator("main")).to_contain_text("node-1")


def test_another_namespaces_job_is_nobodys_business(lab: Lab, url: str) -> None:
    lab.submit("secret", replicas=1, runtime="plain", suspend=True,
               template={"spec": {"containers": [{"name": "trainer", "image": "none"}]}})  # fmt: skip
    owner = {"Authorization": f"Bearer {token(lab, 'owner')}"}
    other = {"Authorization": f"Bearer {token(lab, 'other', role=None)}"}
    base = f"{url}/api/v1"

    def listed() -> bool:
        items = httpx.get(f"{base}/jobs", headers=owner).json()["items"]
        return [item["name"] for item in items] == ["secret"]

    lab.until(listed, 120, "the owner sees the job")
    lab.until(
        lambda: httpx.get(f"{base}/history/jobs", headers=owner).json()["total"] == 1,
        120,
        "and its history",
    )
    one = f"jobs/{lab.namespace}/secret"
    for path in (one, f"{one}/stream", f"{one}/logs", f"{one}/logs/stream", f"history/{one}",
                 f"history/{one}/metrics/loss"):  # fmt: skip
        answer = httpx.get(f"{base}/{path}", headers=other)
        assert answer.status_code in (403, 404), path
        assert httpx.get(f"{base}/{path}", headers={"Authorization": "Bearer x"}).status_code == 401
    for path in ("jobs", "history/jobs"):
        assert httpx.get(f"{base}/{path}", headers=other).json()["total"] == 0
    assert json.dumps(httpx.get(f"{base}/usage", headers=other).json()) == "[]"
    for call in (
        lambda: httpx.post(f"{base}/{one}/resume", headers=other),
        lambda: httpx.delete(f"{base}/{one}", headers=other),
        lambda: httpx.post(f"{base}/{one}/clone", headers=other, json={"name": "mine"}),
    ):
        assert call().status_code in (403, 404)
    assert lab.job("secret")["spec"]["suspend"] is True
    assert httpx.delete(f"{base}/{one}", headers=owner).status_code == 200
