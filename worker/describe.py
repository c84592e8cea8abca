"""An error as a job keeps it: who can mend it, and how."""

from osora_core.errors import DataError, OsoraCoreError
from registry.errors import OsoraError
from registry.jobs import JobError

# For when it is final; while attempts are left, the registry says that the job is tried again.
_NEXT_ACTION = "look at the worker's log, and submit the job again once the cause is mended"


def describe(error: Exception) -> JobError:
    """What goes into the job's row. Whose fault it is when the error is not one of ours, nobody knows."""
    if isinstance(error, OsoraCoreError):
        described: JobError = {
            "code": error.code,
            "message": error.message,
            "param": error.param,
            "fault": "user" if error.fault == "user" else "platform",
            "next_action": error.next_action or (None if error.fault == "user" else _NEXT_ACTION),
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
            "next_action": error.next_action or _NEXT_ACTION,
        }
    return {
        "code": "worker_error",
        "message": f"The worker failed with {type(error).__name__}; its log has the details",
        "param": None,
        "fault": "unknown",
        "next_action": _NEXT_ACTION,
    }
