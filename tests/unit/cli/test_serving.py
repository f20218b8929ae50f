"""A service of a job, a conversation with one, and what was used."""

import json
from typing import Any

import yaml

GROUP = "/apis/drakkar.dev/v1alpha1"
HERE = f"{GROUP}/namespaces/default"
CHAT = "/api/v1/namespaces/default/services/gpt%3Ahttp/proxy/v1"
USED = [{"user": "ann", "resource": "cpu", "seconds": 5400.0}]


def job(**spec: Any) -> dict[str, Any]:
    meta = {"name": "train", "namespace": "default", "resourceVersion": "1"}
    return {"apiVersion": "drakkar.dev/v1alpha1", "kind": "TrainingJob", "metadata": meta,
            "spec": {"recipe": {"name": "pretrain"}, **spec}}  # fmt: skip


STORED = {"everySteps": 5, "storage": {"persistentVolumeClaim": {"claimName": "runs"}}}


def test_a_checkpoint_is_served(api: Any, drakkar: Any) -> None:
    gpus = {"resource": "nvidia.com/gpu", "count": 8}
    api.on(
        "GET", f"{HERE}/trainingjobs/train", job(checkpoint=STORED, accelerators=gpus, queue="q")
    )
    resource = {"name": "inferenceservices", "kind": "InferenceService", "namespaced": True}
    api.on("GET", GROUP, {"resources": [resource]})
    api.on("POST", f"{HERE}/inferenceservices", {"metadata": {"name": "train"}}, 201)
    made = drakkar("serve", "train", "--step", "5", "--min", "0", "--max", "3", "-o", "yaml")
    assert made.exit_code == 0, made.output
    ((_, query, body),) = api.sent("POST")
    assert yaml.safe_load(made.stdout) == body
    assert "dryRun" not in query
    assert body["spec"] == {
        "model": {"trainingJob": {"name": "train", "step": 5}},
        "accelerators": {"resource": "nvidia.com/gpu", "count": 1},
        "queue": "q",
        "scaling": {"min": 0, "max": 3},
    }
    assert "created" in drakkar("serve", "train").stdout
    assert "would be accepted" in drakkar("serve", "train", "--dry-run").stdout
    assert api.sent("POST")[-1][1]["dryRun"] == "All"


def test_a_job_without_checkpoints_can_not_be_served(api: Any, drakkar: Any) -> None:
    api.on("GET", f"{HERE}/trainingjobs/train", job())
    refused = drakkar("serve", "train")
    assert refused.exit_code == 1
    assert "has no checkpoint.storage" in refused.stderr
    assert api.sent("POST") == []


def served(api: Any) -> None:
    api.on("GET", f"{HERE}/inferenceservices/gpt", {
        "apiVersion": "drakkar.dev/v1alpha1", "kind": "InferenceService",
        "metadata": {"name": "gpt", "namespace": "default", "resourceVersion": "1"},
        "spec": {"model": {"name": "m", "pvc": {"claimName": "c"}}},
    })  # fmt: skip


def test_a_conversation_keeps_what_was_said(api: Any, drakkar: Any) -> None:
    served(api)
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    api.on("POST", f"{CHAT}/chat/completions", {
        "choices": [{"message": {"content": "[red]yes[/]"}}], "usage": usage})  # fmt: skip
    said = drakkar("chat", "gpt", input="one\n\ntwo\n")
    assert said.stdout.splitlines() == ["[red]yes[/]", "[red]yes[/]"]
    assert "3 tokens in, 1 out" in said.stderr
    _, (_, _, body) = api.sent("POST")
    assert [turn["content"] for turn in body["messages"]] == ["one", "[red]yes[/]", "two"]
    assert body["model"] == "m"


def test_a_text_is_gone_on_with(api: Any, drakkar: Any) -> None:
    served(api)
    api.on("POST", f"{CHAT}/completions", {"choices": [{"text": " was"}]})
    said = json.loads(drakkar("chat", "gpt", "--complete", "-m", "In it", "-o", "json").stdout)
    assert said == {"service": "gpt", "answer": " was", "usage": {}}


def test_what_the_model_says_of_a_mistake_is_told(api: Any, drakkar: Any) -> None:
    served(api)
    api.on("POST", f"{CHAT}/chat/completions", {"error": {"message": "no template"}}, 400)
    refused = drakkar("chat", "gpt", "-m", "hi")
    assert refused.exit_code == 1
    assert "refuses (400): no template" in refused.stderr


def test_usage_is_asked_of_the_server(api: Any, drakkar: Any) -> None:
    api.on("GET", "/api/v1/usage", json.dumps(USED))
    found = json.loads(drakkar("usage", "--server", api.url, "--by", "user", "-o", "json").stdout)
    assert found == [{"user": "ann", "resource": "cpu", "hours": 1.5}]
    ((_, query, _),) = api.sent("GET")
    assert query["by"] == "user"
    table = drakkar("usage", "--server", api.url, "--by", "user").stdout.splitlines()
    assert table[1].split() == ["ann", "cpu", "1.5"]


def test_usage_says_where_the_server_could_be(drakkar: Any) -> None:
    refused = drakkar("usage", "--server", "http://127.0.0.1:9")
    assert refused.exit_code == 1
    assert "port-forward" in refused.stderr
