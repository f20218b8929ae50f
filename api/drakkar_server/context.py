"""What all routes share: the parts of the running server, and who asks."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from drakkar.kube.rest import Rest
from drakkar_server.auth.identity import Reviews
from drakkar_server.auth.limits import RateLimit, StreamLimit
from drakkar_server.auth.sessions import Sessions
from drakkar_server.cluster.state import Live
from drakkar_server.history.history import History
from drakkar_server.metrics import Metrics
from drakkar_server.settings import Settings


@dataclass(slots=True)
class Context:
    """The parts, made when the server starts."""

    settings: Settings
    metrics: Metrics
    rest: Rest
    """Speaks as the server itself: it may look, and ask who may do what."""
    users: Rest
    """Speaks as nobody: see ``Caller.rest``."""
    live: Live
    history: History
    reviews: Reviews
    sessions: Sessions
    requests: RateLimit
    logins: RateLimit
    streams: StreamLimit


def context_of(request: Request) -> Context:
    """The parts of the server that handles this request."""
    context: Context = request.app.state.context
    return context


Parts = Annotated[Context, Depends(context_of)]
