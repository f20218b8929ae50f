"""kopf's part: it watches Drakkar's kinds and hands over what it sees. Decorators only."""

from collections.abc import Callable
from typing import Any

import kopf

from drakkar.constants import GROUP, VERSION
from drakkar.kube.rest import Object


def register(
    registry: kopf.OperatorRegistry,
    *,
    take: Callable[[str | None, Object], None],
    take_service: Callable[[str | None, Object], None],
    login: Callable[[], kopf.ConnectionInfo],
    configure: Callable[[kopf.OperatorSettings], None],
) -> None:
    """Put the operator's handlers into a registry.

    ``take(type, object)`` gets every watch event of a TrainingJob, ``take_service`` those of an
    InferenceService; ``login()`` the connection; ``configure`` adjusts
    kopf's settings at start-up.
    """

    @kopf.on.event(GROUP, VERSION, "trainingjobs", registry=registry)
    def trainingjob(type: str | None, event: Any, **_: Any) -> None:
        take(type, event["object"])

    @kopf.on.event(GROUP, VERSION, "inferenceservices", registry=registry)
    def inferenceservice(type: str | None, event: Any, **_: Any) -> None:
        take_service(type, event["object"])

    @kopf.on.login(registry=registry)
    def authenticate(**_: Any) -> kopf.ConnectionInfo:
        return login()

    @kopf.on.startup(registry=registry)
    def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure(settings)
