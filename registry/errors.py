"""The one error tree. Each class knows its HTTP status; the API turns an instance into the error body."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from osora_data import Problem


class OsoraError(Exception):
    """An error with a meaning for the caller.

    Args:
        message: what is wrong, with the offending value.
        param: the request field at fault, if one is.
        code: a stable word for programs; defaults to the class's own.
        next_action: what the caller can do about it.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        next_action: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or type(self).code
        self.next_action = next_action


class InvalidRequest(OsoraError):
    """The request cannot be carried out as written."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class InvalidFile(InvalidRequest):
    """A line of an uploaded file is not what training needs.

    Attributes:
        line: 1-based line number, None when the file as a whole is at fault.
        field: path of the field inside the line, such as `messages[1].content`.
        problems: the first of all that is wrong with the file; problem_count: how many there are in all.
    """

    code = "invalid_file"

    def __init__(
        self,
        message: str,
        *,
        line: int | None = None,
        field: str | None = None,
        next_action: str | None = None,
    ) -> None:
        where = f"line {line}: " if line is not None else ""
        super().__init__(where + message, param="file", next_action=next_action)
        self.line = line
        self.field = field
        self.problems: Sequence[Problem] = ()
        self.problem_count = 0

    @classmethod
    def of(cls, problems: Sequence[Problem], count: int) -> Self:
        """Of what the reader has found, one problem at least, of `count` in all."""
        first = problems[0]
        subject = f"`{first.field}` " if first.field else ""
        more = f" ({count - 1} more {'problem' if count == 2 else 'problems'} in the file)" if count > 1 else ""
        error = cls(subject + first.problem + more, line=first.line, field=first.field, next_action=first.next_action)
        error.problems, error.problem_count = problems, count
        return error


class Unauthorized(OsoraError):
    """No key, or not one of ours."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(OsoraError):
    """A good key without the scope that this takes."""

    status = 403
    type = "permission_error"
    code = "insufficient_scope"


class NotFound(OsoraError):
    """No such thing, or not this tenant's."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class Conflict(OsoraError):
    """The thing is not in a state that allows this."""

    status = 409
    type = "conflict_error"
    code = "conflict"


class TooLarge(OsoraError):
    """The body is over the configured limit."""

    status = 413
    type = "invalid_request_error"
    code = "too_large"


@dataclass(frozen=True)
class Standing:
    """How much of a rate is left, and in how many seconds all of it is there again."""

    of: Literal["requests", "tokens"]
    limit: int
    remaining: int
    reset_in: float


class RateLimited(OsoraError):
    """A limit of the tenant's, or of its key's, is met.

    Attributes:
        retry_after: seconds until there is room again; None: waiting alone does not make any.
        standing: of the rate that is met, if it is one.
    """

    status = 429
    type = "rate_limit_error"
    code = "rate_limited"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        next_action: str | None = None,
        retry_after: float | None = None,
        standing: Standing | None = None,
    ) -> None:
        super().__init__(message, param=param, code=code, next_action=next_action)
        self.retry_after = retry_after
        self.standing = standing


class QuotaExceeded(RateLimited):
    """An amount is used up: what comes on top is refused until some of it is given back or granted.

    OpenAI's word for it, which clients know not to repeat.
    """

    type = "insufficient_quota"
    code = "insufficient_quota"


class Unavailable(OsoraError):
    """Something we depend on is down; try again later."""

    status = 503
    type = "service_unavailable_error"
    code = "unavailable"


class StorageFull(OsoraError):
    """A disk that we write to has no room left: nothing was stored."""

    status = 507
    type = "server_error"
    code = "storage_full"
