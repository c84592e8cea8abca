"""Which attempts a worker holds, also when two of them are at the same job."""

from contextlib import suppress
from types import SimpleNamespace
from typing import cast

import pytest

from registry.jobs import Attempt
from worker.held import HeldAttempts
from worker.reports import Interruption, Reports


def attempt(job_id: str, token: str) -> Attempt:
    return cast(Attempt, SimpleNamespace(job_id=job_id, token=token))


def test_an_attempt_is_held_until_it_ends_even_if_it_fails() -> None:
    held, mine = HeldAttempts(), attempt("job", "a")
    with suppress(RuntimeError), held.hold(mine, Reports()):
        assert [found for found, _ in held.all()] == [mine]
        raise RuntimeError
    assert held.all() == []


def test_of_two_attempts_at_a_job_the_first_is_lost_and_takes_nothing_of_the_seconds_with_it() -> None:
    held, first, second, other = HeldAttempts(), Reports(), Reports(), Reports()
    before, after = attempt("job", "a"), attempt("job", "b")
    with held.hold(attempt("another", "c"), other):
        lost = held.hold(before, first)
        lost.__enter__()
        with held.hold(after, second):
            with pytest.raises(Interruption) as told:
                first.pause(0)
            assert told.value.signal == "lost"
            for reports in (second, other):
                reports.pause(0)  # they go on
            lost.__exit__(None, None, None)
            assert [found.token for found, _ in held.all()] == ["c", "b"]
        assert [found.token for found, _ in held.all()] == ["c"]


def test_a_lost_attempt_stays_lost_whatever_else_is_wanted_of_it() -> None:
    held, first = HeldAttempts(), Reports()
    with held.hold(attempt("job", "a"), first):
        first.signal("drain")
        with held.hold(attempt("job", "b"), Reports()):
            first.signal("continue")
            assert first.next() == "lost"
