"""Pages: whoever looks sees what they may, text stays text, and changes need the session's token."""

import base64
import re
from datetime import UTC, datetime

import pytest

from drakkar_server.web.settings import end_of
from support.pages import XSS, csrf, signed_in
from support.server_world import ADMIN, ANN, BEN, World

PAGES = ("/", "/jobs", "/history", "/jobs/new", "/compare", "/queues", "/nodes", "/services", "/usage",
         "/settings")  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_is_there_for_who_is_signed_in(here: World, path: str) -> None:
    away = await here.client(None).get(path)
    assert (away.status_code, away.headers["location"]) == (303, "/login")
    client = await signed_in(here, ADMIN)
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    assert "<h1" in answer.text
    assert ADMIN not in answer.text
    # Nothing that the content security policy would block.
    assert not re.search(r"<script>|\son\w+=|\sstyle=", answer.text)


async def test_a_wrong_token_signs_nobody_in(here: World) -> None:
    answer = await here.client(None).post("/login", data={"token": "wrong"})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    forged = await here.client(None).post(
        "/login", data={"token": ADMIN}, headers={"Sec-Fetch-Site": "cross-site"}
    )
    assert forged.status_code == 403


async def test_strings_of_users_stay_text(here: World) -> None:
    here.job(
        "evil",
        status={
            "phase": "Failed",
            "pendingReason": XSS,
            "restarts": [{"id": "1", "time": "2026-01-01T00:00:00Z", "scope": "pod", "reason": XSS, "message": XSS}],
            "conditions": [{"type": "Failed", "status": "True", "reason": "x", "message": XSS}],
            "checkpoints": [{"step": 1, "path": XSS, "time": "2026-01-01T00:00:00Z"}],
        },
        queue=XSS,
    )  # fmt: skip
    await here.sees("ann/evil")
    client = await signed_in(here, ADMIN)
    for path in ("/", "/jobs", "/history", "/jobs/ann/evil", "/jobs?search=" + XSS):
        text = (await client.get(path)).text
        assert "<script>alert" not in text, path
        assert "<img src=x" not in text
    bad = await client.post(
        "/jobs/new/plan", data={"manifest": XSS}, headers={"X-CSRF-Token": await csrf(client)}
    )
    assert "<script>alert" not in bad.text


async def test_a_change_needs_the_token_of_the_session(here: World) -> None:
    here.job("one")
    await here.sees("ann/one")
    client = await signed_in(here, ANN)
    other = await csrf(await signed_in(here, ANN))
    for headers in ({}, {"X-CSRF-Token": "0" * 64}, {"X-CSRF-Token": other}):
        for path in ("/jobs/ann/one/act/delete", "/api/v1/jobs/ann/one/suspend"):
            assert (await client.post(path, headers=headers)).status_code == 403
        assert (await client.delete("/api/v1/jobs/ann/one", headers=headers)).status_code == 403
    answer = await client.post(
        "/jobs/ann/one/act/suspend", headers={"X-CSRF-Token": await csrf(client)}
    )
    assert answer.status_code == 200
    assert "saves its state" in answer.text
    assert here.kube.get("trainingjobs.drakkar.dev", "one", "ann")["spec"]["suspend"] is True


async def test_pages_of_others_jobs_do_not_exist(here: World) -> None:
    here.job("secret-plan")
    await here.sees("ann/secret-plan")
    client = await signed_in(here, BEN)
    token = {"X-CSRF-Token": await csrf(client)}
    assert (await client.get("/jobs/ann/secret-plan")).status_code == 404
    for path in ("/", "/jobs", "/history"):
        assert "secret-plan" not in (await client.get(path)).text
    refused = await client.post("/jobs/ann/secret-plan/act/delete", headers=token)
    assert refused.status_code == 403
    assert here.kube.get("trainingjobs.drakkar.dev", "secret-plan", "ann")
    assert (await client.get("/compare?job=ann/secret-plan")).status_code == 404


async def test_signing_out_ends_the_session(here: World) -> None:
    client = await signed_in(here, ANN)
    await client.post("/logout", data={"csrf": await csrf(client)})
    assert (await client.get("/")).status_code == 303


async def test_yaml_with_aliases_is_refused(here: World) -> None:
    client = await signed_in(here, ANN)
    bomb = "a: &a [x,x]\nb: &b [*a,*a]\n"
    answer = await client.post(
        "/jobs/new/plan", data={"manifest": bomb}, headers={"X-CSRF-Token": await csrf(client)}
    )
    assert "aliases" in answer.text


async def test_settings_tell_rights_and_the_end_of_the_session(here: World) -> None:
    client = await signed_in(here, ANN)
    for namespace, may in (("ann", 10), ("ben", 0)):
        text = (await client.get(f"/settings?namespace={namespace}")).text
        # Besides, ann may list queues, but not nodes.
        assert text.count(">may</span>") == may + 1
        assert "ends in 11h" in text or "ends in 12h" in text
        assert ANN not in text
    assert (await client.get("/settings?namespace=../x")).status_code == 422


def test_the_end_of_a_token_is_what_it_says() -> None:
    claims = base64.urlsafe_b64encode(b'{"exp": 1767225600}').decode().rstrip("=")
    assert end_of(f"h.{claims}.s") == datetime(2026, 1, 1, tzinfo=UTC)
    for odd in ("", "a.b", "a.!.c", f"h.{base64.urlsafe_b64encode(b'[]').decode()}.s", "opaque"):
        assert end_of(odd) is None
