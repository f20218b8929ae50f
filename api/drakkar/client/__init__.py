"""A small synchronous client for Drakkar's kinds.

>>> client = Client.connect()
>>> job = client.training_jobs.get("train-gpt", namespace="default")
>>> job.status.progress
"""

from drakkar.client.client import Client
from drakkar.client.errors import (
    ClientError,
    ConfigurationError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    NotInstalledError,
    UnreachableError,
)
from drakkar.client.resource import ResourceClient, WatchEvent

__all__ = [
    "Client",
    "ClientError",
    "ConfigurationError",
    "ForbiddenError",
    "InvalidError",
    "NotFoundError",
    "NotInstalledError",
    "ResourceClient",
    "UnreachableError",
    "WatchEvent",
]
