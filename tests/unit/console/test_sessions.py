"""Keys live in sessions, and end with them."""

import asyncio
import gc

import pytest

from console.sessions import Session, Sessions, SignedOutError
from osora.discovery import Target

KEY = "osk-of-a-person"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Opened:
    """A page."""

    ended = 0

    def session_ended(self) -> None:
        self.ended += 1


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions("http://127.0.0.1:1", 60.0, clock)


def keys_in_memory() -> list[str | None]:
    gc.collect()
    return [found.key for found in gc.get_objects() if type(found) is Target and found.key == KEY]


def test_a_session_is_found_by_what_its_browser_holds_and_by_nothing_else(sessions: Sessions) -> None:
    token, other = sessions.begin(sessions.client(KEY)), sessions.begin(sessions.client("osk-of-another"))
    assert sessions.find(token) is not sessions.find(other)
    assert [sessions.find(wrong) for wrong in (None, "", token[:-1], token.upper())] == [None] * 4


def test_whoever_signs_out_leaves_no_key_behind_and_their_pages_hear_of_it(sessions: Sessions) -> None:
    token = sessions.begin(sessions.client(KEY))
    session = sessions.find(token)
    assert session is not None
    page = Opened()
    session.pages.add(page)
    assert keys_in_memory() == [KEY]
    sessions.end(token)
    assert keys_in_memory() == []
    assert (page.ended, sessions.find(token), len(sessions)) == (1, None, 0)
    with pytest.raises(SignedOutError):
        _ = session.osora


def test_who_does_nothing_is_signed_out_and_who_does_something_is_not(sessions: Sessions, clock: Clock) -> None:
    idle, busy = sessions.begin(sessions.client(KEY)), sessions.begin(sessions.client("osk-of-another"))
    clock.now = 50.0
    found = sessions.find(busy)
    assert isinstance(found, Session)
    found.touch()
    clock.now = 61.0
    assert sessions.find(idle) is None
    assert keys_in_memory() == []
    sessions.end_idle()
    assert sessions.find(busy) is found
    clock.now = 111.0
    sessions.end_idle()
    assert len(sessions) == 0


def test_the_program_that_ends_forgets_everybody(sessions: Sessions) -> None:
    async def run() -> None:
        async with sessions.running():
            sessions.begin(sessions.client(KEY))
            assert len(sessions) == 1

    asyncio.run(run())
    assert (len(sessions), keys_in_memory()) == (0, [])


def test_what_cannot_be_a_key_is_refused(sessions: Sessions) -> None:
    with pytest.raises(Exception, match="plain ASCII"):
        sessions.client("osk-ü")
