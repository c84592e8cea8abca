"""Lists are gone through page by page, as far as somebody goes."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from osora import OsoraError

from .conftest import Connect


def pages(count: int, key: str = "id") -> tuple[Callable[[httpx.Request], httpx.Response], list[dict[str, str]]]:
    """A service with so many objects, and the queries that it gets."""
    every = [{key: f"x-{number}"} for number in range(count)]
    queries: list[dict[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        query = dict(request.url.params)
        queries.append(query)
        start = next((i + 1 for i, item in enumerate(every) if item[key] == query.get("after")), 0)
        size = min(int(query["limit"]), 100)
        return httpx.Response(200, json={"data": every[start : start + size], "has_more": start + size < count})

    return answer, queries


def test_all_objects_of_all_pages(connect: Connect) -> None:
    answer, queries = pages(250)
    client = connect(answer)
    listing = client.osora.jobs.list(status="running")
    assert queries == []
    assert [job["id"] for job in client.all(listing)] == [f"x-{number}" for number in range(250)]
    assert [query.get("after") for query in queries] == [None, "x-99", "x-199"]
    assert all(query["status"] == "running" for query in queries)
    assert not listing.has_more


def test_a_page_is_asked_for_when_it_is_needed(connect: Connect) -> None:
    answer, queries = pages(250)
    client = connect(answer)
    listing = client.osora.adapters.list()
    assert client.next(listing)["id"] == "x-0"
    assert len(queries) == 1


@pytest.mark.parametrize(
    ("limit", "asked", "has_more"),
    [(0, [], False), (1, ["1"], True), (150, ["100", "50"], True), (250, ["100", "100", "50"], False)],
)
def test_at_most_the_limit(connect: Connect, limit: int, asked: list[str], has_more: bool) -> None:
    answer, queries = pages(250)
    client = connect(answer)
    listing = client.osora.jobs.list(limit)
    assert len(client.all(listing)) == limit
    assert ([query["limit"] for query in queries], listing.has_more) == (asked, has_more)


def test_the_next_page_of_aliases_is_after_a_name(connect: Connect) -> None:
    answer, queries = pages(101, key="name")
    client = connect(answer)
    assert len(client.all(client.osora.aliases.list())) == 101
    assert queries[1]["after"] == "x-99"


def test_from_one_on(connect: Connect) -> None:
    answer, _ = pages(3)
    client = connect(answer)
    assert client.all(client.osora.files.list(after="x-1")) == [{"id": "x-2"}]


@pytest.mark.parametrize("data", [[], [{"id": "x-0"}], [{}]], ids=["empty", "the same again", "no ids"])
def test_a_list_that_does_not_go_on_ends(connect: Connect, data: list[Any]) -> None:
    client = connect(lambda _: httpx.Response(200, json={"data": data, "has_more": True}))
    assert len(client.all(client.osora.jobs.list())) <= 2


@pytest.mark.parametrize("body", [[], {"data": {}}, {"jobs": []}, {"data": [1]}])
def test_what_is_no_list(connect: Connect, body: Any) -> None:
    client = connect(lambda _: httpx.Response(200, json=body))
    with pytest.raises(OsoraError, match="a list of objects was asked for"):
        client.all(client.osora.jobs.list())
    with pytest.raises(OsoraError, match="a list of objects was asked for"):
        client.got(client.osora.bases())
