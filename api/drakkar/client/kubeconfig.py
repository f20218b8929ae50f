"""Which cluster commands talk to."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes import config
from kubernetes.client import Configuration
from kubernetes.config.config_exception import ConfigException
from yaml import YAMLError

from drakkar.client.errors import ConfigurationError
from drakkar.local.paths import ClusterPaths, default_name

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True, slots=True)
class Connection:
    """A cluster, a user and the namespace that names without one mean."""

    configuration: Any
    namespace: str = "default"
    source: str = ""
    """Where this comes from, for messages."""


def find_kubeconfig(explicit: str | None = None) -> str | None:
    """The kubeconfig to use: the one given, $KUBECONFIG, that of the local cluster which
    $DRAKKAR_CLUSTER names, ~/.kube/config, or the local cluster's.

    Several files in $KUBECONFIG are merged as kubectl does. None: there is no file at all.
    """
    if explicit:
        return explicit
    if named := os.environ.get("KUBECONFIG"):
        return named
    local, home = ClusterPaths.of(default_name()).kubeconfig, Path.home() / ".kube/config"
    order = (local, home) if os.environ.get("DRAKKAR_CLUSTER") else (home, local)
    return next((str(path) for path in order if path.is_file()), None)


def load(explicit: str | None = None, context: str | None = None) -> Connection:
    """Read the kubeconfig, or the pod's service account where there is none.

    Raises ConfigurationError, which says what to do.
    """
    path = find_kubeconfig(explicit)
    configuration = Configuration()
    if path is None:
        return _in_cluster(configuration)
    try:
        config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=path, context=context, client_configuration=configuration
        )
        contexts, active = config.list_kube_config_contexts(  # type: ignore[no-untyped-call]
            config_file=path
        )
        if context:
            active = next(item for item in contexts if item["name"] == context)
    except (ConfigException, YAMLError, OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(f"The kubeconfig {path} can't be used: {error}") from None
    namespace = (active.get("context") or {}).get("namespace") or "default"
    return Connection(configuration, namespace, path)


def _in_cluster(configuration: Any) -> Connection:
    try:
        config.load_incluster_config(  # type: ignore[no-untyped-call]
            client_configuration=configuration
        )
    except ConfigException:
        raise ConfigurationError(
            "There is no kubeconfig: start a cluster on this machine with 'drakkar cluster up', "
            "or name one with --kubeconfig or $KUBECONFIG."
        ) from None
    namespace = _NAMESPACE_FILE.read_text().strip() if _NAMESPACE_FILE.exists() else "default"
    return Connection(configuration, namespace, "service account")
