"""The job state machine.

    queued -> running -> succeeded | failed | cancelled
    queued | running -> paused -> queued

The row is the truth and a broker message a hint. Whichever message a worker got, it claims the job whose turn it is
(`turns`), by one UPDATE, which gives it a token and a lease. Every write of the running job is conditional on the
token, so a worker that was given up for dead (and is not) changes nothing. See `lease`, `progress`, `endings` for the
worker's side, `requests`, `queries`, `forecast`, `rehearsal` and `probes` for the tenant's, `maintenance` for what puts
things right.
"""

from registry.jobs.endings import complete, fail
from registry.jobs.forecast import Forecast, foresee
from registry.jobs.lease import began_at, claim, claim_next, heartbeat, release, signals, wants_to_be_alone
from registry.jobs.maintenance import any_lost, reap, reconcile
from registry.jobs.progress import add_event, record_checkpoint, record_plan, record_progress
from registry.jobs.queries import attempts, checkpoints, events, get, queue_position, queue_positions
from registry.jobs.queries import list_jobs as list
from registry.jobs.rehearsal import Pace, Rehearsal, rehearse
from registry.jobs.requests import cancel, pause, resume, submit
from registry.jobs.types import (
    Attempt,
    CheckpointRef,
    FileRef,
    HeartbeatSignal,
    JobError,
    JobRequest,
    LeaseLostError,
    NewAdapter,
    NewResultFile,
    Plan,
    Remark,
    RowCounts,
    StartRef,
)
from registry.jobs.views import JobView, expected, view, views

__all__ = [
    "Attempt",
    "CheckpointRef",
    "FileRef",
    "Forecast",
    "HeartbeatSignal",
    "JobError",
    "JobRequest",
    "JobView",
    "LeaseLostError",
    "NewAdapter",
    "NewResultFile",
    "Pace",
    "Plan",
    "Rehearsal",
    "Remark",
    "RowCounts",
    "StartRef",
    "add_event",
    "any_lost",
    "attempts",
    "began_at",
    "cancel",
    "checkpoints",
    "claim",
    "claim_next",
    "complete",
    "events",
    "expected",
    "fail",
    "foresee",
    "get",
    "heartbeat",
    "list",
    "pause",
    "queue_position",
    "queue_positions",
    "reap",
    "reconcile",
    "record_checkpoint",
    "record_plan",
    "record_progress",
    "rehearse",
    "release",
    "resume",
    "signals",
    "submit",
    "view",
    "views",
    "wants_to_be_alone",
]
