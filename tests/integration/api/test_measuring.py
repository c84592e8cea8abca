"""What files come to in the tokens of a base: measured once, kept, and told before a job is made."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import delete

from api.files.measuring import measure_of, measured
from api.services import Services
from osora_data.measures import Measure
from registry import files
from registry.context import Registry
from registry.measures import FileMeasure
from registry.models import File
from registry.settings import Settings
from registry.tenants import Principal
from tests.integration.api.conftest import error_of
from tests.integration.api.fake_inference import FakeInference
from tests.integration.api.fake_inference import measured as measure
from tests.support.jobs import upload

OVER = [{"line": 2, "row": 2, "tokens": 120}, {"line": 5, "row": 4, "tokens": 300}]


@pytest.fixture
def fake(inference: dict[str, FakeInference]) -> Iterator[FakeInference]:
    first = next(iter(inference.values()))
    first.measure = measure(1)
    yield first
    first.may_measure.set()


@pytest.fixture
def inference_urls(inference: dict[str, FakeInference]) -> str:
    return next(iter(inference))


@pytest.fixture
def file(registry: Registry, principal: Principal) -> File:
    return upload(registry, principal)


def create(client: httpx.Client, file: File, **fields: Any) -> httpx.Response:
    return client.post("/jobs", json={"model": "osora-tiny", "training_file": file.id, **fields})


def test_it_is_asked_for_once_and_kept(settings: Settings, fake: FakeInference, file: File) -> None:
    async def ask() -> list[Measure | str]:
        async with Services.open(settings) as services:
            both = await asyncio.gather(*(measured(services, file, "osora-tiny") for _ in range(2)))
            return [*both, await measured(services, file, "osora-tiny")]

    async def later() -> Measure | None:
        async with Services.open(settings) as services:
            return await measure_of(services, file, "osora-tiny")

    assert asyncio.run(ask()) == [Measure.of(measure(1))] * 3
    assert asyncio.run(later()) == Measure.of(measure(1)), "a later process finds it"
    (asked,) = fake.asked
    assert asked == {
        "tenant": file.tenant_id,
        "base": "osora-tiny",
        "object_key": file.object_key,
        "sha256": file.sha256,
        "rows": file.rows,
        "bytes": file.bytes,
        "limit": None,
    }


def test_another_base_of_that_name_is_measured_anew(settings: Settings, fake: FakeInference, file: File) -> None:
    async def ask() -> Measure | None:
        async with Services.open(settings) as services:
            return await measure_of(services, file, "osora-tiny")

    assert asyncio.run(ask()) == Measure.of(measure(1))
    fake.fingerprint, fake.measure = "g", measure(1, tokens=77)
    assert asyncio.run(ask()) == Measure.of(measure(1, tokens=77))


def test_it_is_kept_for_each_limit(settings: Settings, fake: FakeInference, file: File) -> None:
    async def ask(limit: int | None) -> Measure | None:
        async with Services.open(settings) as services:
            return await measure_of(services, file, "osora-tiny", limit=limit)

    asyncio.run(ask(None))
    asyncio.run(ask(50))
    assert [asked["limit"] for asked in fake.asked] == [None, 50]


def test_what_takes_long_is_there_later(settings: Settings, fake: FakeInference, file: File) -> None:
    async def ask() -> tuple[Measure | str, Measure | str]:
        async with Services.open(settings) as services:
            fake.may_measure.clear()
            first = await measured(services, file, "osora-tiny", seconds=0.01)
            fake.may_measure.set()
            return first, await measured(services, file, "osora-tiny", seconds=60)

    first, second = asyncio.run(ask())
    assert isinstance(first, str)
    assert "still being measured" in first
    assert second == Measure.of(measure(1))
    assert len(fake.asked) == 1, "the second joined the first"


def test_a_tenant_has_so_many_measured_at_once(
    settings: Settings, fake: FakeInference, registry: Registry, principal: Principal
) -> None:
    sent = [upload(registry, principal) for _ in range(9)]

    async def ask() -> list[Measure | str]:
        async with Services.open(settings) as services:
            fake.may_measure.clear()
            answers = [await measured(services, file, "osora-tiny", seconds=0) for file in sent]
            fake.may_measure.set()
            return answers

    *_, before, last = asyncio.run(ask())
    assert "still being measured" in str(before)
    assert "8 files of yours" in str(last)


def test_a_measure_goes_with_its_file(
    settings: Settings, fake: FakeInference, file: File, registry: Registry, principal: Principal
) -> None:
    async def ask() -> Measure | str:
        async with Services.open(settings) as services:
            return await measured(services, file, "osora-tiny")

    asyncio.run(ask())
    files.delete(registry, principal, file.id)
    # A request that was under way then keeps nothing of it, and does not mind.
    assert asyncio.run(ask()) == Measure.of(measure(1))
    assert asyncio.run(ask()) == Measure.of(measure(1))
    assert len(fake.asked) == 3


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_rows_over_the_limit_are_refused_before_there_is_a_job(
    client: httpx.Client, fake: FakeInference, file: File
) -> None:
    fake.measure = measure(9, rows_over=2, over=OVER)
    error = error_of(create(client, file), 400)
    assert (error["param"], error["code"]) == ("training_file", "rows_too_long")
    assert "2 rows" in error["message"]
    assert "longer than 100 tokens: line 2 has 120, line 5 has 300" in error["message"]
    assert 'osora.overlong to "truncate" or "drop"' in error["next_action"]
    assert client.get("/jobs").json()["data"] == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_job_with_a_lower_limit_is_measured_by_it(client: httpx.Client, fake: FakeInference, file: File) -> None:
    assert create(client, file, osora={"max_length": 50}).status_code == 200
    assert [asked["limit"] for asked in fake.asked] == [50]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_rows_that_the_base_refuses_are_told(client: httpx.Client, fake: FakeInference, file: File) -> None:
    refused = [{"line": 3, "row": 3, "problem": "the template takes no system message", "next_action": "leave it out"}]
    fake.measure = measure(9, rows_refused=8, refused=refused * 7)
    error = error_of(create(client, file, validation_file=file.id), 400)
    assert (error["param"], error["next_action"]) == ("training_file", "leave it out")
    assert "cannot be trained on 8 rows" in error["message"]
    assert error["message"].endswith(" and 3 more")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_validation_file_is_measured_too(
    client: httpx.Client, fake: FakeInference, file: File, registry: Registry, principal: Principal
) -> None:
    assert create(client, file).status_code == 200
    other = upload(registry, principal)
    fake.measure = measure(9, rows_over=1, over=OVER[:1], complete=False)
    error = error_of(create(client, file, validation_file=other.id), 400)
    assert error["param"] == "validation_file"
    assert error["message"].startswith("at least 1 row ")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_without_a_measure_the_job_is_made(client: httpx.Client, fake: FakeInference, file: File) -> None:
    fake.measure = None
    assert create(client, file).status_code == 200
    error = error_of(create(client, file, model="no-such"), 400)
    assert error["code"] == "model_not_found"


def test_a_job_that_is_there_is_answered_again_whatever_its_rows_are_found_to_be(
    client: httpx.Client, fake: FakeInference, file: File, registry: Registry
) -> None:
    def find(found: dict[str, Any]) -> None:
        fake.measure = found
        with registry.transaction() as session:
            session.execute(delete(FileMeasure))

    body = {"model": "osora-tiny", "training_file": file.id}
    once = {"Idempotency-Key": "one"}
    made = client.post("/jobs", json=body, headers=once)
    find(measure(5, rows_over=2, over=OVER))
    again = client.post("/jobs", json=body, headers=once)
    assert (again.status_code, again.json()["id"]) == (200, made.json()["id"])
    assert client.post("/jobs", json=body, headers={"Idempotency-Key": "two"}).status_code == 400
    find(measure(5))
    assert client.post("/jobs", json=body, headers={"Idempotency-Key": "two"}).status_code == 200, "it was not spent"
