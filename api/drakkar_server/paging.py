"""Lists by pages: sorted and cut on the server."""

import heapq
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

T = TypeVar("T")
MOST_ITEMS = 500
DEEPEST = 1_000_000


class Page(BaseModel, Generic[T]):
    """One page of a list."""

    items: list[T]
    total: int = Field(description="Items on all pages together.")
    limit: int
    offset: int


class Cut(NamedTuple):
    """Which items of the sorted whole are asked for."""

    limit: int
    offset: int


def cut(
    limit: Annotated[int, Query(ge=1, le=MOST_ITEMS, description="Items on a page.")] = 50,
    offset: Annotated[int, Query(ge=0, le=DEEPEST, description="Items before the page.")] = 0,
) -> Cut:
    """Dependency: the query's limit and offset."""
    return Cut(limit, offset)


def page_of(
    found: Iterable[T], key: Callable[[T], Any], wanted: Cut, *, descending: bool
) -> tuple[list[T], int]:
    """The page, and the number of all. Items whose key is None come last either way."""
    items = list(found)
    last = wanted.offset + wanted.limit

    def rank(item: T) -> tuple[bool, Any]:
        value = key(item)
        # With descending the largest come first, and None must still lose against all.
        return ((value is None) != descending, 0 if value is None else value)

    # Near the front a heap finds the page without sorting the rest.
    if last < len(items) // 8:
        pick = heapq.nlargest if descending else heapq.nsmallest
        head = pick(last, items, key=rank)
    else:
        head = sorted(items, key=rank, reverse=descending)
    return head[wanted.offset : last], len(items)
