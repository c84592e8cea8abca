"""Every error has its status, and the one shape."""

import pytest

from inference.errors import ServerError, describe
from osora_core.errors import CorruptArtifact, IdentityMismatch, OutOfSlots, UnknownBase, UserError


@pytest.mark.parametrize(
    ("error", "status", "type", "code"),
    [
        (UnknownBase("no base"), 404, "invalid_request_error", "base_not_found"),
        (UserError("bad"), 400, "invalid_request_error", "invalid_request"),
        (IdentityMismatch("two hashes"), 409, "conflict_error", "identity_mismatch"),
        (CorruptArtifact("other bytes"), 502, "server_error", "corrupt_artifact"),
        (OutOfSlots("full"), 500, "server_error", "out_of_slots"),
    ],
)
def test_the_librarys_errors(error: Exception, status: int, type: str, code: str) -> None:
    expected = {"error": {"message": str(error), "type": type, "param": None, "code": code}}
    assert describe(error) == (status, expected)


def test_param_and_next_action_are_passed_on() -> None:
    _, body = describe(UserError("top_p cannot be 2", param="top_p", next_action="use 0 to 1"))
    assert body["error"]["param"] == "top_p"
    assert body["error"]["next_action"] == "use 0 to 1"


def test_the_servers_own_errors_say_when_to_come_back() -> None:
    error = ServerError(429, "rate_limit_error", "overloaded", "600 wait", next_action="wait", retry_after=1)
    status, body = describe(error)
    assert (status, body["error"]["code"], body["error"]["next_action"]) == (429, "overloaded", "wait")
    assert error.headers == {"retry-after": "1"}


def test_anything_else_gives_nothing_away() -> None:
    status, body = describe(KeyError("secret"))
    assert status == 500
    assert body["error"]["code"] == "internal_error"
    assert "secret" not in str(body)
