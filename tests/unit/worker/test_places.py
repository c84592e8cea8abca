"""Which jobs a worker may claim while others train or are prepared."""

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from worker import places as module
from worker.places import Place, Places

Claims = Callable[[str], Place | None]


@pytest.fixture
def changes() -> list[None]:
    return []


@pytest.fixture
def places(changes: list[None]) -> Places:
    return Places(4, lambda: changes.append(None))


@pytest.fixture
def claims(places: Places) -> Iterator[Claims]:
    """Claims a job of a tenant, if there is room for one; it ends with the test."""
    with ExitStack() as held:

        def claim(tenant: str) -> Place | None:
            def attempt(passed_over: Collection[str]) -> Any:
                return None if tenant in passed_over else SimpleNamespace(tenant_id=tenant)

            claimed = held.enter_context(places.claimed(attempt))
            return None if claimed is None else claimed[1]

        yield claim


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is prepared has been for long."""
    monkeypatch.setattr(module, "_SLOW_SECONDS", -1.0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long this test is kept waiting, nothing is prepared for long."""
    monkeypatch.setattr(module, "_SLOW_SECONDS", math.inf)


@pytest.mark.usefixtures("quick")
def test_jobs_that_are_prepared_count_as_long_as_they_are_quick(places: Places, claims: Claims) -> None:
    assert [claims(tenant) is not None for tenant in "abcde"] == [True] * 4 + [False]
    assert (places.room, places.claimable) == (0, 4)


@pytest.mark.usefixtures("slow")
def test_one_tenant_has_half_of_them_prepared_and_takes_no_room_from_others(places: Places, claims: Claims) -> None:
    hostile = [claims("hostile") for _ in range(9)]
    assert [place is not None for place in hostile] == [True, True] + [False] * 7
    assert places.passed_over() == ["hostile"]
    for _ in range(4):
        other = claims("other")
        assert other is not None
        assert other.begins_to_train(0)
    assert places.room == 0  # four train, beside the two that are prepared


@pytest.mark.usefixtures("slow")
def test_whoever_overtakes_leaves_if_there_is_no_room_in_the_end(places: Places, claims: Claims) -> None:
    regular = [claims(tenant) for tenant in "aabb"]
    guest = claims("c")
    assert guest is not None
    assert guest.is_guest
    assert all(place is not None and not place.is_guest and place.begins_to_train(0) for place in regular)
    assert not guest.begins_to_train(0)
    assert places.room == 0


def test_it_is_told_when_there_may_be_room(places: Places, changes: list[None]) -> None:
    with places.claimed(lambda _: SimpleNamespace(tenant_id="a")) as claimed:  # type: ignore[arg-type, return-value]
        assert claimed is not None
        assert changes == []
        assert claimed[1].begins_to_train(0)
        assert len(changes) == 1
    assert len(changes) == 2
    with places.claimed(lambda _: None) as claimed:
        assert claimed is None
    assert (len(changes), places.room) == (2, 4)
