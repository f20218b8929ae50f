"""Templates to pages: the environment, and how values are shown."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import jinja2
import yaml
from fastapi import Request
from fastapi.responses import HTMLResponse, Response

from drakkar.cli.progress import restart_line
from drakkar.cli.show import duration, number
from drakkar_server.auth.caller import Caller
from drakkar_server.context import context_of
from drakkar_server.problems import ProblemError

HERE: Final = Path(__file__).parent
NAVIGATION: Final = (
    ("/", "Overview"), ("/jobs", "Jobs"), ("/history", "History"), ("/queues", "Queues"),
    ("/nodes", "Nodes"), ("/services", "Services"), ("/usage", "Usage"), ("/settings", "Settings"),
)  # fmt: skip


def _age(value: datetime | None) -> str:
    return "–" if value is None else duration(max(0.0, time.time() - value.timestamp()))


def _left(value: datetime) -> str:
    return duration(max(0.0, value.timestamp() - time.time()))


def _number(value: float | None) -> str:
    return "–" if value is None else number(value)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _time(value: datetime | None) -> str:
    return "–" if value is None else f"{value:%Y-%m-%d %H:%M:%S}"


def _at(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _yaml(value: Any) -> str:
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100))


environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
environment.filters |= {
    "age": _age, "left": _left, "number": _number, "percent": _percent, "time": _time, "yaml": _yaml, "at": _at,
    "duration": duration, "restart": restart_line,
}  # fmt: skip


def page(
    request: Request, caller: Caller | None, template: str, code: int = 200, **values: Any
) -> Response:
    """A whole page."""
    context = context_of(request)
    html = environment.get_template(template).render(
        caller=caller,
        csrf=caller.csrf if caller else "",
        user=caller.user.name if caller else "",
        here=request.url.path,
        navigation=NAVIGATION,
        live=context.live,
        history=context.history,
        **values,
    )
    return HTMLResponse(html, code)


def fragment(template: str, *, changed: bool = False, **values: Any) -> Response:
    """A part of a page, for htmx; ``changed`` makes the parts that show the object load anew."""
    html = environment.get_template(template).render(**values)
    return HTMLResponse(html, headers={"HX-Trigger": "changed"} if changed else {})


def error_page(request: Request, problem: ProblemError) -> Response:
    """A problem as a page; who is not signed in is led to where one can."""
    asked_by_htmx = request.headers.get("HX-Request") == "true"
    if problem.details.status == 401:
        where = "/login"
        if asked_by_htmx:
            return Response(status_code=204, headers={"HX-Redirect": where})
        return Response(status_code=303, headers={"Location": where})
    if asked_by_htmx:
        html = environment.get_template("_problem.html").render(problem=problem.details)
        # htmx shows answers of 2xx only; the words say that it failed.
        return HTMLResponse(
            html,
            200,
            headers={"HX-Retarget": "#notice", "HX-Reswap": "innerHTML", "HX-Reselect": "#problem"},
        )
    return page(request, None, "error.html", problem.details.status, problem=problem.details)
