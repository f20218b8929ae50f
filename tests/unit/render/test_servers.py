"""The pods of services: command lines, probes, volumes, security."""

from datetime import UTC, datetime
from typing import Any

import pytest

from drakkar.routing import digest
from drakkar.v1alpha1.inferenceservice import Revision
from drakkar_operator.render.serving.objects import objects
from drakkar_operator.render.serving.pods import server_pod
from drakkar_operator.render.settings import WorkerSettings
from support.jobs import NOW
from support.services import service

SETTINGS = WorkerSettings(image="drakkar/worker:1", python="python3", runtime_class="local")
DIGEST = digest("token")
REVISION = Revision(name="r1", created=datetime.fromtimestamp(NOW, UTC), spec={})
HF = {"hf": {"repo": "a/b", "revision": "main", "secretName": "token"}}


def pod(rank: int = 0, revision: Revision = REVISION, **spec: Any) -> dict[str, Any]:
    view = service(**spec)
    return server_pod(view, view.spec, revision, "3", rank, "a", SETTINGS)


def server(rank: int = 0, revision: Revision = REVISION, **spec: Any) -> dict[str, Any]:
    found: dict[str, Any] = pod(rank, revision, **spec)["spec"]["containers"][0]
    return found


VLLM = {"name": "vllm", "image": "vllm/vllm-openai"}
SGLANG = {"name": "sglang", "image": "lmsysorg/sglang", "port": 30000}
GROUP = {"tensor": 8, "pipeline": 2, "pods": 2}
LEADER = "chat-serve-3-0.chat-serve.ml.svc.cluster.local"


@pytest.mark.parametrize(
    ("spec", "rank", "expected"),
    [
        (
            {},
            0,
            "python3 -m drakkar_workers.serve --model /models/gpt --name chat --port 8000 "
            "--drain-delay 5 --drain-timeout 300",
        ),
        (
            {"runtime": {"args": ["--quantization=int8"]}, "rollout": {"drainSeconds": 9},
             "model": {"name": "gpt-4", "pvc": {"claimName": "m"}}},
            0,
            "python3 -m drakkar_workers.serve --model /models --name gpt-4 --port 8000 "
            "--drain-delay 5 --drain-timeout 9 --quantization=int8",
        ),
        (
            {"adapters": {"claimName": "loras", "items": [{"name": "poet", "path": "p/v2"}]}},
            0,
            "python3 -m drakkar_workers.serve --model /models/gpt --name chat --port 8000 "
            "--drain-delay 5 --drain-timeout 300 --adapters /adapters",
        ),
        (
            {"model": {"pvc": {"claimName": "m"}, "cache": {"claimName": "c"}}},
            0,
            "python3 -m drakkar_workers.serve --model /models --name chat --port 8000 "
            "--drain-delay 5 --drain-timeout 300 --packed /cache/packed",
        ),
        (
            {"model": HF, "runtime": VLLM, "parallelism": {"tensor": 2}},
            0,
            "vllm serve a/b --served-model-name chat --host 0.0.0.0 --port 8000 "
            "--tensor-parallel-size 2 --pipeline-parallel-size 1 --revision main",
        ),
        (
            {"model": {"s3": {"uri": "s3://b/m", "endpoint": "http://minio"}}, "runtime": VLLM},
            0,
            "vllm serve s3://b/m --served-model-name chat --host 0.0.0.0 --port 8000 "
            "--tensor-parallel-size 1 --pipeline-parallel-size 1 --load-format runai_streamer",
        ),
        (
            {"runtime": VLLM, "parallelism": GROUP},
            1,
            "vllm serve /models/gpt --served-model-name chat --host 0.0.0.0 --port 8000 "
            "--tensor-parallel-size 8 --pipeline-parallel-size 2 "
            "--distributed-executor-backend mp --nnodes 2 --node-rank 1 "
            f"--master-addr {LEADER} --master-port 20000 --headless",
        ),
        (
            {"runtime": VLLM,
             "adapters": {"claimName": "loras", "items": [{"name": "poet", "path": "p"}]}},
            0,
            "vllm serve /models/gpt --served-model-name chat --host 0.0.0.0 --port 8000 "
            "--tensor-parallel-size 1 --pipeline-parallel-size 1 "
            "--enable-lora --lora-modules poet=/adapters/poet",
        ),
        (
            {"model": HF, "runtime": SGLANG, "parallelism": GROUP},
            0,
            "python3 -m sglang.launch_server --model-path a/b --served-model-name chat "
            "--host 0.0.0.0 --port 30000 --enable-metrics --tp-size 8 --pp-size 2 --revision main "
            f"--nnodes 2 --node-rank 0 --dist-init-addr {LEADER}:20000",
        ),
        (
            {"runtime": {"name": "custom", "image": "x", "command": ["serve"], "args": ["-v"]}},
            0,
            "serve -v",
        ),
    ],
)  # fmt: skip
def test_command_lines(spec: dict[str, Any], rank: int, expected: str) -> None:
    assert " ".join(server(rank, **spec)["command"]) == expected


def test_a_custom_image_keeps_its_own_command() -> None:
    found = server(runtime={"name": "custom", "image": "x", "args": ["-v"]})
    assert "command" not in found
    assert found["args"] == ["-v"]
    assert {"name": "DRAKKAR_MODEL", "value": "/models/gpt"} in found["env"]


@pytest.mark.parametrize(
    ("runtime", "ready", "alive"),
    [
        ({}, "/health", "/livez"),
        (VLLM, "/health", "/health"),
        (SGLANG, "/health", "/health"),
        ({"name": "custom", "image": "x"}, "/health", None),
        (
            {
                "name": "custom",
                "image": "x",
                "probes": {"readinessPath": "/up", "livenessPath": "/l"},
            },
            "/up",
            "/l",
        ),
    ],
)
def test_probes(runtime: dict[str, Any], ready: str, alive: str | None) -> None:
    found = server(runtime=runtime)
    port = runtime.get("port", 8000)
    assert found["readinessProbe"]["httpGet"] == {"path": ready, "port": port}
    assert found["startupProbe"]["httpGet"] == {"path": ready, "port": port}
    assert found.get("livenessProbe", {}).get("httpGet", {}).get("path") == alive
    startup = found["startupProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] == 1800


def test_only_the_first_pod_of_a_replica_is_probed() -> None:
    found = server(1, runtime=VLLM, parallelism=GROUP)
    assert "readinessProbe" not in found


def test_the_kill_comes_after_the_drain() -> None:
    grace = pod(rollout={"drainSeconds": 60})["spec"]["terminationGracePeriodSeconds"]
    assert grace > 60 + 5


def test_models_of_jobs_lie_where_their_checkpoint_was() -> None:
    made = REVISION.model_copy(update={"model_claim": "runs", "model_path": "gpt/step-20"})
    found = pod(0, made, model={"trainingJob": {"name": "gpt"}})["spec"]
    volume = next(one for one in found["volumes"] if one["name"] == "model")
    assert volume["persistentVolumeClaim"] == {"claimName": "runs", "readOnly": True}
    assert "/models/gpt/step-20" in found["containers"][0]["command"]


def _volumes(**spec: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Claims by the name of their volume, and mounts by their path."""
    found = pod(**spec)["spec"]
    claims = {
        one["name"]: one["persistentVolumeClaim"]
        for one in found["volumes"]
        if "persistentVolumeClaim" in one
    }
    mounts = {one["mountPath"]: one for one in found["containers"][0]["volumeMounts"]}
    return claims, mounts


def test_the_cache_alone_is_written() -> None:
    cache = {"claimName": "cache", "path": "gpt"}
    claims, mounts = _volumes(model={"pvc": {"claimName": "models"}, "cache": cache})
    assert claims == {
        "model": {"claimName": "models", "readOnly": True},
        "cache": {"claimName": "cache", "readOnly": False},
    }
    assert mounts["/cache"] == {"name": "cache", "mountPath": "/cache", "subPath": "gpt"}
    assert mounts["/models"]["readOnly"]


def test_a_claim_is_one_volume_whatever_it_is_for() -> None:
    claims, mounts = _volumes(
        model={"pvc": {"claimName": "all", "path": "gpt"}, "cache": {"claimName": "all"}},
        adapters={"claimName": "all", "items": [{"name": "poet", "path": "loras/p"}]},
    )
    assert claims == {"model": {"claimName": "all", "readOnly": False}}
    assert {mounts[at]["name"] for at in ("/models", "/adapters/poet", "/cache")} == {"model"}
    assert [mounts[at].get("readOnly") for at in ("/models", "/adapters/poet", "/cache")] == [
        True,
        True,
        None,
    ]


@pytest.mark.parametrize("runtime", [{}, VLLM, SGLANG])
def test_what_servers_keep_is_in_the_cache(runtime: dict[str, Any]) -> None:
    model = {"pvc": {"claimName": "m"}, "cache": {"claimName": "c"}}
    variables = {
        one["name"]: one.get("value") for one in server(model=model, runtime=runtime)["env"]
    }
    assert variables["XDG_CACHE_HOME"] == variables["DRAKKAR_CACHE"] == "/cache"
    assert "XDG_CACHE_HOME" not in {one["name"] for one in server(runtime=runtime)["env"]}


def test_images_are_mounted_and_secrets_are_not_read_by_the_operator() -> None:
    found = pod(model={"oci": {"image": "example.com/models/gpt:1", "path": "weights"}})["spec"]
    volume = next(one for one in found["volumes"] if one["name"] == "model")
    assert volume["image"]["reference"] == "example.com/models/gpt:1"
    assert "/models/weights" in found["containers"][0]["command"]
    assert server(model=HF, runtime=VLLM)["envFrom"] == [{"secretRef": {"name": "token"}}]


def test_pods_and_routers_are_restricted_and_hold_no_token() -> None:
    router = next(
        body for _, body in objects(service(), SETTINGS, DIGEST) if body["kind"] == "Deployment"
    )
    for spec in (pod()["spec"], router["spec"]["template"]["spec"]):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True


def test_a_template_wins() -> None:
    template = {
        "metadata": {"labels": {"team": "a"}},
        "spec": {
            "containers": [
                {"name": "sidecar"},
                {"name": "server", "env": [{"name": "HOME", "value": "/x"}]},
            ],
            "terminationGracePeriodSeconds": 5,
        },
    }
    found = pod(template=template)
    assert found["metadata"]["labels"]["team"] == "a"
    assert found["spec"]["terminationGracePeriodSeconds"] == 5
    containers = found["spec"]["containers"]
    assert [one["name"] for one in containers] == ["sidecar", "server"]
    assert {"name": "HOME", "value": "/x"} in containers[1]["env"]
    assert "command" not in containers[0]


def test_several_routers_have_a_budget() -> None:
    kinds = [body["kind"] for _, body in objects(service(routing={"routers": 2}), SETTINGS, DIGEST)]
    assert "PodDisruptionBudget" in kinds
    assert "PodDisruptionBudget" not in [
        body["kind"] for _, body in objects(service(), SETTINGS, DIGEST)
    ]
