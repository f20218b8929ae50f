"""While the API server is away its last answers count a while longer, and none is made up."""

import base64
import json
from typing import Any

import pytest

from drakkar.kube.rest import ApiError
from drakkar_server.auth.identity import Action, Reviews, User, expired

LIST = Action("list", "trainingjobs", "ann")
ONE = Action("get", "trainingjobs", "ann", "one")
ANN = User("ann")


class Api:
    """Answers reviews, until it is away."""

    def __init__(self) -> None:
        self.allowed = True
        self.error: ApiError | None = None
        self.asked = 0

    async def post(self, path: str, body: Any) -> Any:
        self.asked += 1
        if self.error:
            raise self.error
        user = {"username": "ann"}
        return {"status": {"allowed": self.allowed, "authenticated": True, "user": user}}


class Case:
    """Reviews whose answers count 10 s, and 100 s more while the API server is away."""

    def __init__(self) -> None:
        self.api = Api()
        self.now = 0.0
        self.away = False
        self.reviews = Reviews(
            self.api,  # type: ignore[arg-type]
            seconds=10,
            late_seconds=100,
            away=lambda: self.away,
            clock=lambda: self.now,
        )

    def go_away(self) -> None:
        self.api.error = ApiError(0, "Refused", "nobody there")


async def test_last_answers_count_for_a_while() -> None:
    case = Case()
    assert await case.reviews.may(ANN, LIST)
    assert await case.reviews.user_of("t")
    case.go_away()
    case.now = 50
    assert await case.reviews.may(ANN, LIST)
    assert await case.reviews.user_of("t")
    case.now = 111
    for ask in (case.reviews.may(ANN, LIST), case.reviews.user_of("t")):
        with pytest.raises(ApiError):
            await ask


async def test_an_api_server_known_to_be_away_is_not_waited_for() -> None:
    case = Case()
    assert await case.reviews.may(ANN, LIST)
    asked, case.now, case.away = case.api.asked, 50, True
    assert await case.reviews.may(ANN, LIST)
    assert case.api.asked == asked


async def test_a_refusal_counts_as_long_as_a_permission() -> None:
    case = Case()
    case.api.allowed = False
    assert not await case.reviews.may(ANN, LIST)
    case.go_away()
    case.now = 50
    assert not await case.reviews.may(ANN, LIST)


async def test_who_may_list_may_see_one_and_nobody_else() -> None:
    case = Case()
    assert await case.reviews.may(ANN, LIST)
    case.go_away()
    assert await case.reviews.may(ANN, ONE)
    for user, action in (
        (User("ben"), ONE),
        (ANN, ONE._replace(namespace="ben")),
        (ANN, ONE._replace(resource="queues")),
        (ANN, ONE._replace(verb="delete")),
        (ANN, ONE._replace(subresource="status")),
    ):
        with pytest.raises(ApiError):
            await case.reviews.may(user, action)


async def test_an_answer_that_is_no_fault_is_not_replaced_by_an_older_one() -> None:
    case = Case()
    assert await case.reviews.may(ANN, LIST)
    case.now = 50
    case.api.error = ApiError(403, "Forbidden", "the server itself may not ask")
    with pytest.raises(ApiError):
        await case.reviews.may(ANN, LIST)


async def test_namespaces_of_which_nothing_is_known_are_left_out() -> None:
    case = Case()
    case.api.allowed = False
    assert (await case.reviews.visible(ANN, LIST, ["ann"])).namespaces == frozenset()
    case.now = 20
    # The role comes: the rest of what was refused lately still is.
    assert not await case.reviews.may(ANN, LIST._replace(namespace=""))
    case.api.allowed = True
    assert (await case.reviews.visible(ANN, LIST, ["ann"])).namespaces == {"ann"}
    case.go_away()
    case.now = 60
    assert (await case.reviews.visible(ANN, LIST, ["ann", "ben"])).namespaces == {"ann"}


def jwt(claims: Any) -> str:
    part = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{part}.sig"


@pytest.mark.parametrize(
    ("token", "is_over"),
    [
        (jwt({"exp": 99}), True),
        (jwt({"exp": 100}), True),
        (jwt({"exp": 101}), False),
        (jwt({}), False),
        (jwt([1]), False),
        (jwt({"exp": "soon"}), False),
        ("opaque", False),
        ("a.b.c", False),
        ("a.\xff.c", False),
    ],
)
def test_a_token_that_says_so_is_over(token: str, is_over: bool) -> None:
    assert expired(token, 100.0) is is_over


async def test_a_token_that_is_over_is_nobodys_even_while_nobody_can_be_asked() -> None:
    case = Case()
    token = jwt({"exp": 1})
    assert await case.reviews.user_of(token)
    case.go_away()
    case.now = 50
    with pytest.raises(ApiError):
        await case.reviews.user_of(token)
