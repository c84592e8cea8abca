"""What is new of many jobs at once, for those who follow them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from registry.models import Job, JobEvent

_AT_ONCE = 200
"""SQLite takes no expression that is more than 1000 deep, and each job adds to it."""


@dataclass(frozen=True)
class News:
    """New events in the order of their ids, jobs that have ended or are gone, and whether there are more events to
    fetch at once: until then, events of those that have ended may be missing."""

    events: Sequence[JobEvent]
    ended: frozenset[str]
    gone: frozenset[str]
    has_more: bool


def news(session: Session, positions: Mapping[str, int], limit: int) -> News:
    """What there is after the id of each job's last known event, at most `limit` events of so many jobs at once.

    Whoever asks has been found to be a tenant that may read these jobs.
    """
    events: list[JobEvent] = []
    ended: set[str] = set()
    found: set[str] = set()
    has_more = False
    asked = list(positions.items())
    for start in range(0, len(asked), _AT_ONCE):
        some = asked[start : start + _AT_ONCE]
        # The jobs first: an ended one gets no more events, so those read after it are all there will be.
        for job in session.scalars(select(Job).where(Job.id.in_([job_id for job_id, _ in some]))):
            found.add(job.id)
            if job.is_terminal:
                ended.add(job.id)
        is_new = or_(*(and_(JobEvent.job_id == job_id, JobEvent.id > after) for job_id, after in some))
        rows = session.scalars(select(JobEvent).where(is_new).order_by(JobEvent.id).limit(limit + 1)).all()
        has_more = has_more or len(rows) > limit
        events.extend(rows[:limit])
    return News(events, frozenset(ended), frozenset(positions.keys() - found), has_more)
