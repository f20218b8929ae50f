"""Rendered pods: bound to their node, restricted, completed but never overruling a template."""

import json
from typing import Any

import pytest

from drakkar.protocol import GANG_ENV, GangConfig
from drakkar.v1alpha1 import TrainingJobStatus
from drakkar.v1alpha1.trainingjob import Placement
from drakkar_operator.render.pods import training_pod
from drakkar_operator.render.resources import pod_requests
from drakkar_operator.render.services import headless
from drakkar_operator.render.settings import WorkerSettings
from support.jobs import job

SETTINGS = WorkerSettings(image="drakkar/worker:1", python="/env/bin/python", runtime_class="rc")
STORAGE = {"storage": {"persistentVolumeClaim": {"claimName": "runs"}}}


def trainer(pod: dict[str, Any]) -> dict[str, Any]:
    """The container that trains."""
    return pod["spec"]["containers"][0]  # type: ignore[no-any-return]


def environment(pod: dict[str, Any]) -> dict[str, Any]:
    """Its variables by name."""
    return {v["name"]: v.get("value", v.get("valueFrom")) for v in trainer(pod)["env"]}


def test_a_recipes_pod_runs_the_agent_on_its_node() -> None:
    pod = training_pod(job(checkpoint=STORAGE), 2, "b", SETTINGS)
    assert pod["metadata"]["name"] == "gpt-2"
    assert pod["metadata"]["ownerReferences"][0]["uid"] == "job-uid"
    assert pod["spec"]["nodeName"] == "b"
    assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == ("gpt-2", "gpt")
    assert pod["spec"]["runtimeClassName"] == "rc"
    assert trainer(pod)["command"] == ["/env/bin/python", "-m", "drakkar_workers.agent"]
    assert trainer(pod)["args"] == []
    assert trainer(pod)["resources"]["requests"] == {"cpu": "500m", "memory": "1Gi"}
    config = GangConfig.model_validate_json(environment(pod)[GANG_ENV])
    assert config.coordinator == "gpt-0.gpt.ml.svc.cluster.local"
    assert config.checkpoint_dir == "/checkpoints/gpt"
    assert config.world_size == 3
    assert config.recipe_config == {"batchSize": 96}
    assert environment(pod)["DRAKKAR_REPLICA_INDEX"] == "2"
    assert environment(pod)["OMP_NUM_THREADS"] == "1"


def test_a_bucket_takes_the_place_of_a_volume_and_its_secret_is_only_named() -> None:
    store = {
        "url": "s3://bucket/runs/",
        "endpoint": "http://minio:9000",
        "secretName": "bucket-key",
    }
    pod = training_pod(job(checkpoint={"storage": {"objectStore": store}}), 0, "a", SETTINGS)
    config = GangConfig.model_validate_json(environment(pod)[GANG_ENV])
    assert config.checkpoint_root == "s3://bucket/runs"
    assert config.checkpoint_dir == "s3://bucket/runs/ml/gpt", "namespaces may share a bucket"
    assert trainer(pod)["envFrom"] == [{"secretRef": {"name": "bucket-key"}}]
    assert environment(pod)["AWS_ENDPOINT_URL"] == "http://minio:9000"
    assert "checkpoints" not in {volume["name"] for volume in pod["spec"]["volumes"]}
    assert "checkpoints" not in {mount["name"] for mount in trainer(pod)["volumeMounts"]}


def test_every_pod_of_a_gang_is_told_the_same() -> None:
    configs = {environment(training_pod(job(), r, "a", SETTINGS))[GANG_ENV] for r in range(3)}
    assert len(configs) == 1


def test_pods_meet_the_restricted_standard() -> None:
    """The fields that the standard's restricted level asks for."""
    pod = training_pod(job(checkpoint=STORAGE), 0, "a", SETTINGS)
    security = pod["spec"]["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert trainer(pod)["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert trainer(pod)["securityContext"]["allowPrivilegeEscalation"] is False
    kinds = {next(key for key in v if key != "name") for v in pod["spec"]["volumes"]}
    assert kinds == {"emptyDir", "persistentVolumeClaim"}
    assert pod["spec"]["automountServiceAccountToken"] is False


def test_pinned_pods_are_left_to_kube_scheduler_with_one_choice() -> None:
    term = {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}
    affinity = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    template = {"spec": {"affinity": {"nodeAffinity": affinity}}}
    pod = training_pod(job(template=template), 0, "b", SETTINGS, pinned=True)
    assert "nodeName" not in pod["spec"]
    required = pod["spec"]["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    field = {"key": "metadata.name", "operator": "In", "values": ["b"]}
    assert required["nodeSelectorTerms"] == [{**term, "matchFields": [field]}]


def test_a_template_is_completed_and_never_overruled() -> None:
    template = {
        "metadata": {"labels": {"team": "x"}, "annotations": {"note": "y"}},
        "spec": {
            "containers": [
                {"name": "sidecar", "image": "s"},
                {
                    "name": "trainer",
                    "image": "mine:1",
                    "command": ["python"],
                    "args": ["train.py", "--fast"],
                    "env": [{"name": "HOME", "value": "/home/me"}],
                    "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],
                    "resources": {"requests": {"cpu": "2"}},
                },
            ],
            "volumes": [{"name": "scratch", "emptyDir": {}}],
            "terminationGracePeriodSeconds": 90,
            "securityContext": {"runAsUser": 1000},
        },
    }
    view = job(recipe=None, template=template, accelerators={"resource": "x.io/gpu", "count": 4})
    pod = training_pod(view, 0, "a", SETTINGS)
    container = pod["spec"]["containers"][1]
    assert container["image"] == "mine:1"
    assert container["command"][-1] == "drakkar_workers.agent"
    assert container["args"] == ["--", "python", "train.py", "--fast"]
    assert {"name": "HOME", "value": "/home/me"} in container["env"]
    assert [m["name"] for m in container["volumeMounts"] if m["mountPath"] == "/tmp"] == ["scratch"]
    assert container["resources"]["requests"] == {"cpu": "2", "x.io/gpu": 4}
    assert container["resources"]["limits"] == {"x.io/gpu": 4}
    assert {"name": "OMP_NUM_THREADS", "value": "2"} in container["env"]
    assert pod["spec"]["containers"][0] == {"name": "sidecar", "image": "s"}
    assert pod["spec"]["terminationGracePeriodSeconds"] == 90
    assert pod["spec"]["securityContext"]["runAsUser"] == 1000
    assert pod["metadata"]["labels"]["team"] == "x"
    assert pod["metadata"]["annotations"] == {"note": "y"}
    assert template["spec"]["containers"][1]["env"] == [{"name": "HOME", "value": "/home/me"}]


def test_plain_pods_run_their_own_command_with_the_rendezvous_set() -> None:
    template = {"spec": {"containers": [{"name": "main", "command": ["./run"]}]}}
    view = job(recipe=None, runtime="plain", template=template)
    pod = training_pod(view, 1, "a", SETTINGS)
    assert trainer(pod)["command"] == ["./run"]
    assert environment(pod)["RANK"] == "1"
    assert environment(pod)["WORLD_SIZE"] == "3"
    assert environment(pod)["MASTER_ADDR"] == "gpt-0.gpt.ml.svc.cluster.local"


def test_a_gang_of_one_meets_itself_without_a_service() -> None:
    pod = training_pod(job(replicas=1), 0, "a", SETTINGS)
    config = GangConfig.model_validate_json(environment(pod)[GANG_ENV])
    assert config.coordinator == "localhost"


def test_the_service_names_pods_before_they_are_ready() -> None:
    service = headless(job())
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    pod = training_pod(job(), 0, "a", SETTINGS)
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()


def container(cpu: str, **more: Any) -> dict[str, Any]:
    """A container that requests CPU."""
    return {"resources": {"requests": {"cpu": cpu}}, **more}


@pytest.mark.parametrize(
    ("spec", "cpu"),
    [
        ({"containers": [container("1"), container("500m")]}, 1500),
        ({"containers": [container("1")], "initContainers": [container("3")]}, 3000),
        ({"containers": [container("1")], "initContainers": [container("500m")]}, 1000),
        (
            {
                "containers": [container("1")],
                "initContainers": [container("2", restartPolicy="Always"), container("2")],
            },
            4000,
        ),
        ({"containers": [container("1")], "overhead": {"cpu": "250m"}}, 1250),
        ({"containers": [{"resources": {"limits": {"cpu": "2"}}}]}, 2000),
    ],
)
def test_requests_are_counted_as_kube_scheduler_does(spec: dict[str, Any], cpu: int) -> None:
    assert pod_requests(spec) == {"cpu": cpu}


def test_gang_config_is_plain_json() -> None:
    value = environment(training_pod(job(), 0, "a", SETTINGS))[GANG_ENV]
    assert json.loads(value)["processesPerReplica"] == 1


def test_each_role_has_its_own_pods() -> None:
    view = job(
        replicas=3,
        roles=[
            {"name": "head", "replicas": 1, "resources": {"requests": {"cpu": 4}}},
            {
                "name": "worker",
                "replicas": 2,
                "accelerators": {"resource": "nvidia.com/gpu", "count": 8},
                "template": {"spec": {"nodeSelector": {"pool": "gpu"}}},
            },
        ],
    )
    head, worker = training_pod(view, 0, "a", SETTINGS), training_pod(view, 2, "b", SETTINGS)
    assert environment(head)["DRAKKAR_ROLE"] == "head"
    assert trainer(head)["resources"]["requests"] == {"cpu": 4, "memory": "1Gi"}
    assert "nodeSelector" not in head["spec"]
    assert worker["metadata"]["labels"]["drakkar.dev/role"] == "worker"
    assert environment(worker)["DRAKKAR_ROLE"] == "worker"
    assert trainer(worker)["resources"]["limits"] == {"nvidia.com/gpu": 8}
    assert worker["spec"]["nodeSelector"] == {"pool": "gpu"}
    assert "DRAKKAR_ROLE" not in environment(training_pod(job(), 0, "a", SETTINGS))


def test_an_elastic_gang_is_told_the_size_that_it_was_given() -> None:
    status = TrainingJobStatus(placement=Placement(level="rack", domain="r", nodes=["a", "b"]))
    view = job(status, replicas=None, elastic={"min": 1, "max": 4}, runtime="plain", recipe=None)
    found = environment(training_pod(view, 1, "b", SETTINGS))
    assert found["WORLD_SIZE"] == "2"
    assert GangConfig.model_validate_json(found[GANG_ENV]).world_size == 2
