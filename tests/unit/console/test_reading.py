"""What a live page reads beside its events."""

import asyncio

import pytest

from console.reading import Reading
from osora.errors import OsoraAPIError, OsoraConnectionError, OsoraError


def test_an_older_answer_that_comes_late_does_not_take_a_newer_ones_place() -> None:
    async def run() -> list[str]:
        service, shown = "running", []
        late = asyncio.Event()

        async def read() -> None:
            answer = service
            if answer == "running":
                await late.wait()
            shown.append(answer)

        reading = Reading(read, lambda _: None)
        older = asyncio.create_task(reading.now())
        await asyncio.sleep(0)  # it has been asked
        service = "cancelled"
        newer = asyncio.create_task(reading.now())
        await asyncio.sleep(0)
        late.set()
        await asyncio.gather(older, newer)
        return shown

    assert asyncio.run(run()) == ["running", "cancelled"]


@pytest.mark.parametrize(
    "error", [OsoraConnectionError("http://osora.test", "refused"), OsoraAPIError(503, "starting")]
)
def test_a_service_that_is_away_is_worth_another_try(error: OsoraError) -> None:
    answers: list[OsoraError | None] = [error, None]
    heard: list[OsoraError] = []

    async def read() -> None:
        if (answer := answers.pop(0)) is not None:
            raise answer

    async def run() -> list[bool]:
        reading = Reading(read, heard.append)
        return [await reading.patiently(), await reading.patiently()]

    assert asyncio.run(run()) == [False, True]
    assert heard == [error]


def test_what_is_refused_is_not_asked_again() -> None:
    async def read() -> None:
        raise OsoraAPIError(404, "no job 'ftjob-1'")

    with pytest.raises(OsoraAPIError, match="no job"):
        asyncio.run(Reading(read, pytest.fail).patiently())
