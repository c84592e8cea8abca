"""When a request is worth sending again, and after how long."""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

MOST_RETRIES = 2
_FIRST_SECONDS = 0.5
_LONGEST_SECONDS = 8.0
# Asked to wait longer than this, we let the caller decide.
_PATIENCE_SECONDS = 60.0
_WORTH_IT = frozenset({408, 429, 500, 502, 503, 504})
# Not carried out, whatever the request was.
NOT_DONE = frozenset({408, 429, 503})


def is_worth_it(answer: httpx.Response) -> bool:
    """Whether the same request may fare better later; a server that says so itself is believed."""
    said = answer.headers.get("x-should-retry")
    return answer.status_code in _WORTH_IT if said not in ("true", "false") else said == "true"


def backoff(attempt: int, chance: Callable[[], float] = random.random) -> float:
    """Seconds to wait after the attempt of this number, from 0 on: anything up to a bound that doubles each time.

    Full jitter: clients that failed together do not come back together.
    """
    return chance() * min(_LONGEST_SECONDS, _FIRST_SECONDS * (1 << attempt))


def delay(attempt: int, headers: httpx.Headers, chance: Callable[[], float] = random.random) -> float | None:
    """Seconds to wait after a refusal: never less than it asks for. None: it asks for more than anybody waits."""
    asked = asked_to_wait(headers) or 0.0
    return None if asked > _PATIENCE_SECONDS else asked + backoff(attempt, chance)


def asked_to_wait(headers: httpx.Headers) -> float | None:
    """For how many seconds a refusal asks to be left alone (`retry-after-ms`, `retry-after`); None: it does not say."""
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    except (KeyError, ValueError):
        pass
    said = headers.get("retry-after", "")
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        at: datetime = parsedate_to_datetime(said)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
