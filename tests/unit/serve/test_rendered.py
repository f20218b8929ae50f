"""What the operator writes as command lines is what server and router read."""

from datetime import UTC, datetime

from drakkar.routing import digest
from drakkar.v1alpha1.inferenceservice import Revision
from drakkar_operator.render.serving.objects import objects
from drakkar_operator.render.serving.pods import server_pod
from drakkar_operator.render.settings import WorkerSettings
from drakkar_workers.serve.__main__ import parse
from drakkar_workers.serve.router.__main__ import parse as parse_router
from support.services import service

SETTINGS = WorkerSettings(image="any")


def test_the_server_reads_its_command_line() -> None:
    view = service(
        model={"pvc": {"claimName": "models", "path": "gpt"}, "cache": {"claimName": "cache"}},
        runtime={"args": ["--quantization=int8"], "port": 9000},
        adapters={"claimName": "loras", "items": [{"name": "poet", "path": "p"}]},
        rollout={"drainSeconds": 40},
    )
    revision = Revision(name="r1", created=datetime.fromtimestamp(0, UTC), spec={})
    pod = server_pod(view, view.spec, revision, "0", 0, "a", SETTINGS)["spec"]
    found = parse(pod["containers"][0]["command"][3:])
    assert (found.engine.model, found.names, found.port) == ("/models/gpt", ["chat"], 9000)
    assert found.engine.quantization == "int8"
    assert str(found.adapters) == "/adapters"
    assert found.engine.packed == "/cache/packed"
    assert found.drain_delay + found.drain_timeout < pod["terminationGracePeriodSeconds"]


def test_the_router_reads_its_command_line() -> None:
    view = service(rollout={"drainSeconds": 40})
    router = next(
        body for _, body in objects(view, SETTINGS, digest("t")) if body["kind"] == "Deployment"
    )
    pod = router["spec"]["template"]["spec"]
    found = parse_router(pod["containers"][0]["args"])
    assert (found.uid, found.token_digest) == (view.uid, digest("t"))
    ports = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
    assert ports == {"http": found.port, "control": found.control_port}
    assert found.drain_delay + found.drain_timeout < pod["terminationGracePeriodSeconds"]
