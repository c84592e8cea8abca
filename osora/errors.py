"""What the SDK raises. Every error is one of those below, and all are an `OsoraError`."""


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

    `status` is the HTTP status; `code`, `message`, `param`, `line` and `next_action` are the fields of the
    service's error object (`line` names a line of an uploaded file); `request_id` finds the request in the
    service's logs. `code` is "not_osora" where something else than Osora answered.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        line: int | None = None,
        next_action: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(f"{message} (HTTP {status})")
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.line = line
        self.next_action = next_action
        self.request_id = request_id


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
