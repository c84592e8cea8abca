"""An error as a job keeps it: who can mend it, and how."""

from osora_core.errors import DataError, OsoraCoreError
from registry.errors import OsoraError
from registry.jobs import JobError


def describe(error: Exception) -> JobError:
    """What goes into the job's row. What is not ours is a platform fault: it may not happen again."""
    if isinstance(error, OsoraCoreError):
        described: JobError = {
            "code": error.code,
            "message": error.message,
            "param": error.param,
            "fault": "user" if error.fault == "user" else "platform",
            "next_action": error.next_action,
        }
        if isinstance(error, DataError):
            described["line"] = error.line
        return described
    if isinstance(error, OsoraError):
        return {
            "code": error.code or "worker_error",
            "message": error.message,
            "param": error.param,
            "fault": "platform",
            "next_action": error.next_action,
        }
    return {
        "code": "worker_error",
        "message": f"The worker failed with {type(error).__name__}; its log has the details",
        "param": None,
        "fault": "platform",
        "next_action": "nothing: the job is tried again by itself",
    }
