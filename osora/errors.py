"""What the SDK raises. Every error is one of the three below, and all are an `OsoraError`."""


class OsoraError(Exception):
    """Base of everything the SDK raises on its own behalf."""


class OsoraConnectionError(OsoraError):
    """The service could not be reached, or went silent in the middle of an answer."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"Cannot reach Osora at {url}: {reason}")
        self.url = url
        self.reason = reason


class OsoraAPIError(OsoraError):
    """The service answered with an error.

    `status` is the HTTP status; `code`, `message`, `param`, `line` and `next_action` are the fields of the
    service's error object (`line` names a line of an uploaded file); `request_id` finds the request in the
    service's logs.
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
