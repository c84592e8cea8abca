"""What follows a fault of ours: another try while attempts are left, a failed job when none is."""

from sqlalchemy.orm import Session

from registry.jobs.state import append_event, end, requeue
from registry.jobs.types import JobError
from registry.models import Job

# A store or a broker that is down should not eat all attempts within a second. Doubles with each one spent.
_BACKOFF_SECONDS = 5


def retry_or_fail(session: Session, job: Job, error: JobError, *, backoff: bool) -> JobError:
    """Spends an attempt of a locked job and queues it again, or fails it if that was the last.

    Returns the error as the attempt is to keep it: while the job is tried again, there is nothing to do about it.

    `backoff`: whether the next try waits a while. A lost worker's job does not: its lease has been waited out.
    """
    job.attempts_spent += 1
    if job.attempts_spent >= job.max_attempts:
        end(session, job, "failed", f"The job failed: {error['message']}", error=error)
        return error
    delay = _BACKOFF_SECONDS * 2 ** (job.attempts_spent - 1) if backoff else 0
    requeue(session, job, interrupted=True, delay_seconds=delay)
    left = job.max_attempts - job.attempts_spent
    message = f"{error['message']}; the job is queued again (attempts left: {left})"
    append_event(session, job, message, level="warn")
    return {**error, "next_action": "nothing: the job was queued again by itself"}
