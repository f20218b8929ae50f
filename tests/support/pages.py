"""A browser's session without a browser, and a text that pages must not take for markup."""

import re

import httpx

from support.server_world import World

XSS = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*7}}"


async def signed_in(here: World, token: str) -> httpx.AsyncClient:
    client = here.client(None)
    answer = await client.post("/login", data={"token": token})
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert token not in cookie
    return client


async def csrf(client: httpx.AsyncClient) -> str:
    found = re.search(r'X-CSRF-Token": "([0-9a-f]{64})"', (await client.get("/")).text)
    assert found
    return found[1]
