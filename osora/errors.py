"""What the SDK raises. Every error is one of those below, and all are an `OsoraError`."""

from collections.abc import Sequence

from osora.schemas import Problem


class OsoraError(Exception):
    """Base of everything the SDK raises on its own behalf."""


class OsoraUsageError(OsoraError):
    """The SDK was given what it cannot use: an address that is none, a key or a text that cannot be sent.

    Nothing was sent. `next_action` says what would be right.
    """

    def __init__(self, message: str, next_action: str) -> None:
        super().__init__(message)
        self.next_action = next_action


class OsoraConnectionError(OsoraError):
    """The service could not be reached, or went silent in the middle of an answer (then `interrupted` is True)."""

    def __init__(self, url: str, reason: str, *, interrupted: bool = False) -> None:
        what = "The connection to Osora at {} broke off" if interrupted else "Cannot reach Osora at {}"
        super().__init__(f"{what.format(url)}: {reason}")
        self.url = url
        self.reason = reason
        self.interrupted = interrupted


class OsoraAPIError(OsoraError):
    """The service answered with an error.

    `status` is the HTTP status; `code`, `message`, `param`, `line`, `field` and `next_action` are the fields of the
    service's error object (`line` and `field` name a place in an uploaded file). A refused file has up to a hundred
    such places in `problems`, and their number in `problem_count`. `request_id` finds the request in the service's
    logs; `retry_after` is after how many seconds the service wants to be asked again. `code` is "not_osora" where
    something else than Osora answered.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        line: int | None = None,
        field: str | None = None,
        problems: Sequence[Problem] | None = None,
        problem_count: int | None = None,
        next_action: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{message} (HTTP {status})")
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.line = line
        self.field = field
        self.problems = list(problems or ())
        self.problem_count = len(self.problems) if problem_count is None else problem_count
        self.next_action = next_action
        self.request_id = request_id
        self.retry_after = retry_after

    @property
    def is_refusal(self) -> bool:
        """Whether the request itself is at fault, so that a later try fares no better."""
        return self.status < 500 and self.status != 429


class OsoraWebhookError(OsoraError):
    """What came to a webhook endpoint is not from Osora, or is too old."""


class OpenAIError(OsoraError):
    """OpenAI's API, where jobs and answers are brought from, refused or could not be reached (then `status` is None).

    `said` is its own sentence, if it sent one; no field has the key in it.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        said: str | None = None,
        next_action: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.said = said
        self.next_action = next_action
