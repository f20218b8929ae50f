"""The client against a server: requests, errors in words, watches."""

from pathlib import Path
from typing import Any

import pytest

from drakkar.client import (
    Client,
    ClientError,
    ConfigurationError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    NotInstalledError,
    UnreachableError,
)
from drakkar.client import resource as resource_module
from drakkar.client.kubeconfig import find_kubeconfig

JOBS = "/apis/drakkar.dev/v1alpha1/namespaces/default/trainingjobs"


def listed(*items: Any, version: str = "10") -> dict[str, Any]:
    return {"kind": "List", "metadata": {"resourceVersion": version}, "items": list(items)}


def job(name: str, version: str = "1") -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "resourceVersion": version}
    return {"metadata": metadata, "spec": {"recipe": {"name": "pretrain"}}}


def test_get_is_typed_and_authenticated(api: Any, client: Client) -> None:
    api.on(
        "GET", f"{JOBS}/gpt", {**job("gpt"), "kind": "TrainingJob", "status": {"phase": "Running"}}
    )
    found = client.training_jobs.get("gpt")
    assert found.name == "gpt"
    assert found.status.phase == "Running"


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (
            404,
            {"details": {"name": "gpt"}},
            NotFoundError,
            "TrainingJob default/gpt does not exist",
        ),
        (404, {}, NotInstalledError, "Is Drakkar installed there"),
        (401, {"message": "Unauthorized"}, ForbiddenError, "does not accept your credentials"),
        (403, {"message": "user u cannot get"}, ForbiddenError, "Not allowed: user u cannot get"),
        (409, {"message": "changed"}, ClientError, "can't be changed now"),
        (500, {"message": "etcd is gone"}, ClientError, "answered 500: etcd is gone"),
        (
            422,
            {"details": {"causes": [{"field": "spec.replicas", "message": "too small"}]}},
            InvalidError,
            "TrainingJob default/gpt is refused: spec.replicas: too small",
        ),
        (
            500,
            {"message": "failed to create typed patch object (/a; X): .spec.x: field not declared"},
            InvalidError,
            "is refused: .spec.x: field not declared",
        ),
    ],
)
def test_refusals_become_sentences(
    api: Any, client: Client, status: int, body: Any, error: type[ClientError], words: str
) -> None:
    api.refuse("GET", f"{JOBS}/gpt", status, **body)
    with pytest.raises(error) as caught:
        client.training_jobs.get("gpt")
    assert words in str(caught.value)
    assert caught.value.code == status


@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_a_busy_server_is_asked_again(api: Any, client: Client, method: str) -> None:
    refusal = {"kind": "Status", "message": "storage is (re)initializing"}
    api.on(method, f"{JOBS}/gpt", refusal, 429, Retry_After="0")
    api.on(method, f"{JOBS}/gpt", job("gpt"))
    if method == "GET":
        assert client.training_jobs.get("gpt").name == "gpt"
    else:
        client.training_jobs.patch("gpt", {"spec": {"suspend": True}})
    assert len(api.sent(method)) == 2


def test_a_server_that_stays_busy_is_given_up(api: Any, client: Client) -> None:
    api.on("GET", f"{JOBS}/gpt", {"message": "too many requests"}, 429, Retry_After="0")
    with pytest.raises(ClientError, match="answered 429: too many requests"):
        client.training_jobs.get("gpt")


def test_kinds_that_are_not_installed(client: Client) -> None:
    with pytest.raises(NotInstalledError, match="helm install"):
        client.training_jobs.list()


def test_server_that_is_not_there(tmp_path: Path) -> None:
    from drakkar.client.kubeconfig import load

    path = tmp_path / "k"
    path.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: x\n"
        "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\n"
        "users: [{name: u, user: {}}]\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n"
    )
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1 does not answer"):
        Client(load(str(path))).server_version()


def test_kubeconfig_that_is_none(tmp_path: Path) -> None:
    for content in (None, "", "a: [", "just text"):
        path = tmp_path / "k"
        if content is not None:
            path.write_text(content)
        with pytest.raises(ConfigurationError, match="can't be used"):
            Client.connect(str(path))


def test_kubeconfig_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DRAKKAR_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("DRAKKAR_CLUSTER", raising=False)
    assert find_kubeconfig() is None
    local = tmp_path / "state/drakkar/kubeconfig"
    local.parent.mkdir(parents=True)
    local.touch()
    assert find_kubeconfig() == str(local)
    own = tmp_path / ".kube/config"
    own.parent.mkdir()
    own.touch()
    assert find_kubeconfig() == str(own)
    monkeypatch.setenv("DRAKKAR_CLUSTER", "drakkar")
    assert find_kubeconfig() == str(local)
    monkeypatch.setenv("DRAKKAR_CLUSTER", "mine")
    assert find_kubeconfig() == str(own)
    monkeypatch.setenv("KUBECONFIG", "/named")
    assert find_kubeconfig() == "/named"
    assert find_kubeconfig("/explicit") == "/explicit"


def test_apply_is_strict_and_finds_the_resource(api: Any, client: Client) -> None:
    api.on(
        "GET",
        "/api/v1",
        {
            "resources": [
                {"name": "pods/log", "kind": "Pod", "namespaced": True},
                {"name": "configmaps", "kind": "ConfigMap", "namespaced": True},
            ]
        },
    )
    api.on("PATCH", "/api/v1/namespaces/team/configmaps/a", {"kind": "ConfigMap"})
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
    client.apply(manifest, "team", dry_run=True)
    ((_, query, body),) = api.sent("PATCH")
    assert query == {
        "fieldManager": "drakkar-cli",
        "fieldValidation": "Strict",
        "force": "true",
        "dryRun": "All",
    }
    assert body == manifest
    with pytest.raises(NotInstalledError, match="no kind Pod"):
        client.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}})


def test_watch_lists_then_follows_then_lists_again(api: Any, client: Client) -> None:
    api.on("GET", JOBS, listed(job("a"), job("b")))
    api.on("GET", JOBS, listed(job("a", "3"), job("c"), version="20"))
    api.on("WATCH", JOBS, [{"type": "MODIFIED", "object": job("b", "2")}])
    api.on("WATCH", JOBS, [])
    events = client.training_jobs.watch()
    seen = [next(events) for _ in range(6)]
    assert [(event.type, event.object.name) for event in seen] == [
        ("ADDED", "a"),
        ("ADDED", "b"),
        ("MODIFIED", "b"),
        ("DELETED", "b"),
        ("MODIFIED", "a"),
        ("ADDED", "c"),
    ]
    watches = [query for _, query, _ in api.sent("GET") if "watch" in query]
    assert watches[0]["resourceVersion"] == "10"


@pytest.mark.parametrize(
    "expired",
    [[{"type": "ERROR", "object": {"code": 410}}], {"kind": "Status", "code": 410}],
    ids=["in the stream", "as status"],
)
def test_watch_survives_an_expired_version(api: Any, client: Client, expired: Any) -> None:
    api.on("GET", JOBS, listed(job("a")))
    api.on("GET", JOBS, listed(job("a", "2")))
    api.on("WATCH", JOBS, expired, 410 if isinstance(expired, dict) else 200)
    events = client.training_jobs.watch()
    assert [next(events).type for _ in range(2)] == ["ADDED", "MODIFIED"]


def test_watch_waits_for_a_server_that_restarts(
    api: Any, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource_module.time, "sleep", lambda seconds: None)
    api.on("GET", JOBS, listed(job("a")))
    api.on("GET", JOBS, listed(job("a", "2")))
    api.on("WATCH", JOBS, [])
    calls = 0
    real = client._transport.request

    def flaky(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if 2 <= calls <= 4:
            raise UnreachableError("away")
        return real(*args, **kwargs)

    monkeypatch.setattr(client._transport, "request", flaky)
    events = client.training_jobs.watch()
    assert [next(events).type for _ in range(2)] == ["ADDED", "MODIFIED"]
    assert calls == 5


def test_watch_of_a_server_that_was_never_there_fails(client: Client, api: Any) -> None:
    client._transport._server = "http://127.0.0.1:1"
    with pytest.raises(UnreachableError):
        next(client.training_jobs.watch())
