"""What answers say of limits: OpenAI's headers, and Anthropic's at its door."""

import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from api.anthropic import errors as anthropic
from registry.errors import QuotaExceeded, RateLimited, Standing


def standing_headers(path: str, standings: Iterable[Standing]) -> dict[str, str]:
    """Of how much is left, in the words of the door that `path` belongs to."""
    say = _for_anthropic if anthropic.speaks(path) else _for_openai
    return {name: value for standing in standings for name, value in say(standing).items()}


def refusal_headers(path: str, error: RateLimited) -> dict[str, str]:
    """Of a 429: when to try again, or that trying again is of no use."""
    headers = standing_headers(path, [] if error.standing is None else [error.standing])
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    if error.retry_after is None or isinstance(error, QuotaExceeded):
        headers["x-should-retry"] = "false"
    return headers


def _for_openai(standing: Standing) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{standing.of}": str(standing.limit),
        f"x-ratelimit-remaining-{standing.of}": str(standing.remaining),
        f"x-ratelimit-reset-{standing.of}": _duration(standing.reset_in),
    }


def _for_anthropic(standing: Standing) -> dict[str, str]:
    reset = datetime.now(UTC) + timedelta(seconds=math.ceil(standing.reset_in))
    return {
        f"anthropic-ratelimit-{standing.of}-limit": str(standing.limit),
        f"anthropic-ratelimit-{standing.of}-remaining": str(standing.remaining),
        f"anthropic-ratelimit-{standing.of}-reset": reset.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _duration(seconds: float) -> str:
    """As OpenAI writes it: `1m12s`, `1.5s`, `20ms`."""
    if seconds >= 60:
        return f"{math.ceil(seconds) // 60}m{math.ceil(seconds) % 60}s"
    return f"{seconds:.3g}s" if seconds >= 1 else f"{math.ceil(seconds * 1000)}ms"
