"""Ways to come by a cluster: each provider brings one up and takes it down."""

from __future__ import annotations

from drakkar.local.paths import ClusterPaths
from drakkar.local.progress import Progress
from drakkar.local.providers.base import NodeStatus, Provider, Request, Status
from drakkar.local.providers.existing import Existing
from drakkar.local.providers.kind import Kind
from drakkar.local.providers.upstream import Upstream
from drakkar.local.state import ProviderName

__all__ = ["NodeStatus", "Provider", "Request", "Status", "provider_for"]


def provider_for(name: ProviderName, paths: ClusterPaths, progress: Progress) -> Provider:
    """The provider of that name for one cluster."""
    if name == "upstream":
        return Upstream(paths, progress)
    if name == "kind":
        return Kind(paths, progress)
    return Existing(paths, progress)
