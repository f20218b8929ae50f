"""Settings of the operator: command line, else environment (``DRAKKAR_`` + name), else default.

The name of the pod and its namespace (``POD_NAME``, ``POD_NAMESPACE``) are the defaults of the
identity and of the Lease's namespace.
"""

import argparse
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from drakkar_operator.render.settings import WorkerSettings

_HELP = {
    "kubeconfig": "kubeconfig file; by default the service account, $KUBECONFIG or ~/.kube/config",
    "namespaces": "namespaces whose jobs are looked after, separated by commas; none: all",
    "namespace": "namespace of the Lease",
    "lease": "name of the Lease by which replicas of the operator elect their leader",
    "identity": "name of this process in the Lease",
    "port": "port of /metrics, /healthz and /readyz; 0 takes a free one",
    "plan_port": "port where 'drakkar plan' is answered; 0 takes a free one",
    "debug_port": "port where 'drakkar debug snapshot' is answered; 0 takes a free one",
    "host": "address to listen on",
    "workers": "jobs reconciled at once",
    "parallel": "writes to the API server at once",
    "qps": "writes to the API server per second",
    "watch_seconds": "a watch is renewed about this often; a silent one is noticed after it",
    "resync_seconds": "jobs are compared with a full list this often",
    "lease_seconds": "a leader that gives no sign for this long is replaced",
    "report_port": "port of the agents' reports",
    "router_port": "port where routers of services are asked",
    "log_level": "debug, info, warning or error",
    "worker_image": "image of training pods whose job names none",
    "worker_python": "Python of that image, by name or path",
    "worker_runtime_class": "RuntimeClass of training pods",
    "worker_pull_policy": "imagePullPolicy of training pods",
    "cluster_domain": "DNS domain of the cluster",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in seconds."""

    kubeconfig: str | None = None
    namespaces: tuple[str, ...] = ()
    namespace: str = "drakkar-system"
    lease: str = "drakkar-operator"
    identity: str = field(default_factory=lambda: f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}")
    host: str = "0.0.0.0"
    port: int = 8080
    plan_port: int = 0
    debug_port: int = 0
    workers: int = 16
    parallel: int = 32
    qps: float = 1000.0
    watch_seconds: float = 120.0
    resync_seconds: float = 120.0
    lease_seconds: float = 15.0
    report_port: int = 8600
    router_port: int = 8601
    log_level: str = "info"
    worker_image: str = "drakkar/worker:0.1.0"
    worker_python: str = "python"
    worker_runtime_class: str | None = None
    worker_pull_policy: str | None = None
    cluster_domain: str = "cluster.local"

    @property
    def worker(self) -> WorkerSettings:
        """What rendering needs."""
        return WorkerSettings(
            image=self.worker_image,
            python=self.worker_python,
            runtime_class=self.worker_runtime_class,
            pull_policy=self.worker_pull_policy,
            cluster_domain=self.cluster_domain,
        )


def parse(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings from the command line and the environment; exits with a message if one is wrong."""
    defaults = Settings()
    defaults = replace(
        defaults,
        identity=environ.get("POD_NAME") or defaults.identity,
        namespace=environ.get("POD_NAMESPACE") or defaults.namespace,
    )
    parser = argparse.ArgumentParser(prog="python -m drakkar_operator", description=__doc__)
    for item in fields(Settings):
        default = getattr(defaults, item.name)
        variable = f"DRAKKAR_{item.name.upper()}"
        parser.add_argument(
            f"--{item.name.replace('_', '-')}",
            type=_names if item.name == "namespaces" else type(default or ""),
            # argparse applies the type to a default that is a string.
            default=environ.get(variable) or default,
            help=f"{_HELP[item.name]} [{variable}; default {default}]".replace("%", "%%"),
        )
    return Settings(**vars(parser.parse_args(arguments)))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
