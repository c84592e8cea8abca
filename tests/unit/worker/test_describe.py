"""Errors as the job keeps them: whose fault, where, and what to do."""

from osora_core.errors import CorruptArtifact, DataError, UserError
from worker.describe import describe


def test_a_row_that_cannot_be_used_names_its_line() -> None:
    error = DataError("the row is 99 tokens long", line=7, param="messages", next_action="shorten the row")
    assert describe(error) == {
        "code": "invalid_data",
        "message": "line 7: the row is 99 tokens long",
        "param": "messages",
        "fault": "user",
        "line": 7,
        "next_action": "shorten the row",
    }


def test_user_and_platform_faults_are_told_apart() -> None:
    mine = describe(UserError("rank cannot be 0", param="rank"))
    theirs = describe(CorruptArtifact("the file has changed"))
    assert (mine["fault"], mine["code"], mine["param"]) == ("user", "invalid_request", "rank")
    assert (theirs["fault"], theirs["code"]) == ("platform", "corrupt_artifact")
    assert "line" not in mine
    assert "line" not in theirs


def test_a_strangers_error_is_an_unknown_fault_and_its_text_stays_in_the_log() -> None:
    described = describe(RuntimeError("password=hunter2"))
    assert described["fault"] == "unknown"
    assert described["code"] == "worker_error"
    assert "tried again" not in str(described["next_action"])  # that is for the registry to say, if it is so
    assert "RuntimeError" in described["message"]
    assert "hunter2" not in str(described)
