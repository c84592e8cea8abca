"""Lists that the service gives page by page."""

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeAlias, TypeVar

import httpx

from osora.errors import OsoraError
from osora.sdk.call import Call, decoded, given
from osora.sdk.transport import AsyncTransport, Transport

Item = TypeVar("Item")

_NO_LIST = "What answers is not Osora: a list of objects was asked for, and it sent something else"

Items: TypeAlias = list[Item]
"""A list that has one page; `list` itself is the name of a method where it is needed."""


def items(response: httpx.Response) -> list[Any]:
    """The objects of a list that has one page."""
    return _page_of_objects(response)[0]


def words(response: httpx.Response) -> list[str]:
    """A list of names, which has one page."""
    return _page(response)[0]


def _page(response: httpx.Response) -> tuple[list[Any], bool]:
    answer = decoded(response)
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
        raise OsoraError(_NO_LIST)
    return answer["data"], bool(answer.get("has_more"))


def _page_of_objects(response: httpx.Response) -> tuple[list[Any], bool]:
    data, has_more = _page(response)
    if not all(isinstance(item, dict) for item in data):
        raise OsoraError(_NO_LIST)
    return data, has_more


@dataclass(frozen=True)
class Listing(Generic[Item]):
    """A list: where it is, from what object on, and how many objects at most; `page` are the most of a page."""

    path: str
    limit: int | None
    after: str | None
    params: Mapping[str, Any]
    page: int = 100
    cursor: str = "id"

    def sync(self, transport: Transport) -> "Pages[Item]":
        return Pages(transport, self)

    def asynchronous(self, transport: AsyncTransport) -> "AsyncPages[Item]":
        return AsyncPages(transport, self)


class _Walk(Generic[Item]):
    """How far a walk through a list has come."""

    def __init__(self, listing: Listing[Item]) -> None:
        self._listing = listing
        self._left = listing.limit
        self._after = listing.after
        self._here: Iterator[Item] = iter(())
        self._is_last = False
        self.has_more = False
        """At the end: whether the service has more than `limit` let through."""

    def _next_page(self) -> Call[tuple[list[Any], bool]] | None:
        if self._is_last or self._left == 0:
            return None
        size = self._listing.page if self._left is None else min(self._left, self._listing.page)
        params = given(limit=size, after=self._after, **self._listing.params)
        return Call("GET", self._listing.path, parse=_page_of_objects, params=params)

    def _take(self, page: tuple[list[Any], bool]) -> None:
        data, has_more = page
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        before, self._after = self._after, data[-1].get(self._listing.cursor) if data else None
        self._is_last = not has_more or self._after in (None, before)
        self.has_more = has_more and not self._is_last
        self._here = iter(data)


class Pages(_Walk[Item], Iterator[Item]):
    """The objects of a list, each page asked for when the one before it has been gone through."""

    def __init__(self, transport: Transport, listing: Listing[Item]) -> None:
        super().__init__(listing)
        self._transport = transport

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        while True:
            for item in self._here:
                return item
            call = self._next_page()
            if call is None:
                raise StopIteration
            self._take(self._transport.send(call))


class AsyncPages(_Walk[Item], AsyncIterator[Item]):
    """The objects of a list, each page asked for when the one before it has been gone through."""

    def __init__(self, transport: AsyncTransport, listing: Listing[Item]) -> None:
        super().__init__(listing)
        self._transport = transport

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        while True:
            for item in self._here:
                return item
            call = self._next_page()
            if call is None:
                raise StopAsyncIteration
            self._take(await self._transport.send(call))
