"""Pages of services: buttons by rights, text stays text, a checkpoint becomes a service."""

import html

import httpx
import yaml

from support import served
from support.pages import XSS, csrf, signed_in
from support.server_world import ANN, BEN, World

SERVICES = "inferenceservices.drakkar.dev"
STORED = {"everySteps": 5, "storage": {"persistentVolumeClaim": {"claimName": "runs"}}}


async def here_is(here: World) -> httpx.AsyncClient:
    served.put(here)
    live = here.app.state.context.live
    await here.until(lambda: "ann/gpt" in live.services.items, "the service is seen")
    return await signed_in(here, ANN)


async def test_a_service_shows_revisions_replicas_and_its_buttons(here: World) -> None:
    client = await here_is(here)
    assert 'href="/services/ann/gpt"' in (await client.get("/services")).text
    text = (await client.get("/services/ann/gpt")).text
    for part in ("needs 1 nvidia.com/gpu, free are 0", "ServerDied", "from 1 to 3 replicas",
                 "90 %", "act/promote", "act/rollback", "act/delete", "Roll back"):  # fmt: skip
        assert part in text, part
    figures = (await client.get("/services/ann/gpt/figures")).text
    assert "175 ms / 235 ms" in figures
    assert "25%" in figures
    here.kube.allows = lambda user, attributes: attributes["verb"] in ("get", "list")  # type: ignore[method-assign]
    text = (await client.get("/services/ann/gpt")).text
    for part in ("act/promote", "act/rollback", "act/delete", "gpt/scale"):
        assert part not in text, part
    assert "the role edit has" in (await client.get("/services/ann/gpt/chat")).text


async def test_buttons_do_what_they_say(here: World) -> None:
    client = await here_is(here)
    token = {"X-CSRF-Token": await csrf(client)}
    assert (await client.post("/services/ann/gpt/scale", data={"replicas": 2})).status_code == 403
    done = await client.post("/services/ann/gpt/scale", data={"replicas": 2}, headers=token)
    assert "is to have 2 replicas" in done.text
    done = await client.post("/services/ann/gpt/act/promote", headers=token)
    assert "takes over" in done.text
    assert done.headers["HX-Trigger"] == "changed"
    found = here.kube.get(SERVICES, "gpt", "ann")["spec"]
    assert (found["replicas"], "canary" in found) == (2, False)


async def test_strings_of_users_stay_text(here: World) -> None:
    status = served.on_trial()
    status["canary"]["message"] = status["members"][2]["pendingReason"] = XSS
    status["conditions"][0] |= {"status": "False", "message": XSS}
    status["restarts"][0]["message"] = status["url"] = XSS
    status["revisions"][1]["modelPath"] = XSS
    here.service(
        "evil", status=status, canary={"weight": 10}, model={"pvc": {"claimName": "m"}, "name": "m"}
    )
    live = here.app.state.context.live
    await here.until(lambda: "ann/evil" in live.services.items, "the service is seen")
    client = await signed_in(here, ANN)
    for path in (
        "/services",
        "/services/ann/evil",
        "/services/ann/evil/figures",
        "/services/ann/evil/chat",
    ):
        answer = await client.get(path)
        assert answer.status_code == 200, path
        text = answer.text
        assert "<script>alert" not in text, path
        assert "<img src=x" not in text, path


async def test_others_services_have_no_page(here: World) -> None:
    await here_is(here)
    client = await signed_in(here, BEN)
    for path in ("", "/figures", "/chat"):
        assert (await client.get(f"/services/ann/gpt{path}")).status_code == 404, path
    assert "/services/ann/gpt" not in (await client.get("/services")).text


async def test_a_checkpoint_becomes_a_service(here: World) -> None:
    checkpoint = {"step": 5, "path": "/checkpoints/step-5", "time": "2026-01-01T00:00:00Z"}
    here.job("train", status={"phase": "Complete", "checkpoints": [checkpoint]}, checkpoint=STORED)
    here.job("lost")
    await here.sees("ann/lost")
    client = await signed_in(here, ANN)
    token = {"X-CSRF-Token": await csrf(client)}
    link = "/services/new?namespace=ann&job=train&step=5"
    await here.until(lambda: here.app.state.context.history.up, "history is there")
    page = (await client.get(link)).text
    text = html.unescape(page.split('hx-target="#plan">', 2)[2].split("</textarea>")[0])
    manifest = yaml.safe_load(text)
    assert manifest["spec"]["model"] == {"trainingJob": {"name": "train", "step": 5}}
    checked = await client.post("/services/new/check", data={"manifest": text}, headers=token)
    assert "would take this service" in checked.text
    # The fake stores dry runs, too.
    here.kube.remove(SERVICES, "ann", "train")
    made = await client.post("/services/new", data={"manifest": text}, headers=token)
    assert made.headers["HX-Redirect"] == "/services/ann/train"
    assert here.kube.get(SERVICES, "train", "ann")["spec"]["replicas"] == 1
    again = await client.post("/services/new", data={"manifest": text}, headers=token)
    assert "write another name" in again.text
    assert (
        "has no checkpoint.storage"
        in (await client.get("/services/new?namespace=ann&job=lost")).text
    )
    assert (await client.get("/services/new?namespace=ben&job=train")).status_code == 404
