"""A worker's side of added bases: claim one that waits, tell how far it is, end it.

A claim has a lease and a token, as a job's has: a worker that dies loses it, and another takes the base up; one that
lost it can change nothing any more.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from registry.added_bases.tables import PREPARING, AddedBase, BaseState
from registry.db import now, now_seconds

MOST_ATTEMPTS = 3
_FACTS = ("family", "has_chat_template", "parameters", "bytes", "base_fingerprint", "basis_fingerprint", "content")


@dataclass(frozen=True)
class Preparation:
    """A worker's hold of a base that it prepares."""

    name: str
    id: str
    source: str
    content: str | None
    token: str


@dataclass(frozen=True)
class ReadyBase:
    """A base that may be loaded."""

    name: str
    id: str
    source: str
    content: str | None


def claim(session: Session, worker_id: str, lease_seconds: float) -> Preparation | None:
    """Takes the base that has waited longest, or whose worker is lost; None where there is none.

    One that has cost so many workers their lives is given up.
    """
    free = or_(AddedBase.lease_expires_at.is_(None), AddedBase.lease_expires_at < now())
    wanted = select(AddedBase).where(AddedBase.state.in_(PREPARING), free).order_by(AddedBase.created_at)
    base = session.scalars(wanted.limit(1).with_for_update(skip_locked=True)).one_or_none()
    if base is None:
        return None
    if base.attempts >= MOST_ATTEMPTS:
        _end(base, "failed")
        died = f"what prepared it has died {base.attempts} times"
        base.problem = died if base.problem is None else f"{died}; at last: {base.problem}"
        base.next_action = "see the workers' logs, most likely for memory; then remove the base and add it again"
        return None
    base.attempts += 1
    base.lease_token, base.worker_id = secrets.token_hex(16), worker_id
    base.lease_expires_at = now() + lease_seconds
    session.flush()
    return Preparation(base.name, base.id, base.source, base.content, base.lease_token)


def report(
    session: Session,
    held: Preparation,
    lease_seconds: float,
    state: BaseState,
    progress: float | None,
    seconds_left: float | None,
) -> bool:
    """Notes how far it is and renews the lease; False where the base is not the worker's any more."""
    base = _fenced(session, held)
    if base is None:
        return False
    base.state, base.progress, base.seconds_left = state, progress, seconds_left
    base.lease_expires_at = now() + lease_seconds
    return True


def finish(session: Session, held: Preparation, facts: Mapping[str, Any]) -> bool:
    """It is ready: from now on it is on offer."""
    base = _fenced(session, held)
    if base is None:
        return False
    for name in _FACTS:
        if facts.get(name) is not None:
            setattr(base, name, facts[name])
    _end(base, "ready")
    base.problem = None
    base.ready_at = now_seconds()
    return True


def fail(session: Session, held: Preparation, problem: str, next_action: str | None) -> bool:
    """It cannot be used as it is."""
    base = _fenced(session, held)
    if base is None:
        return False
    _end(base, "failed")
    base.problem, base.next_action = problem, next_action
    return True


def crash(session: Session, held: Preparation, problem: str) -> None:
    """What the worker had started for it has died: it may be taken up again, and the attempt counts."""
    base = _fenced(session, held)
    if base is not None:
        base.lease_token = base.lease_expires_at = base.worker_id = None
        base.problem = problem


def release(session: Session, held: Preparation) -> None:
    """The worker stops, and another one may go on; it has cost no life."""
    base = _fenced(session, held)
    if base is not None:
        base.lease_token = base.lease_expires_at = base.worker_id = None
        base.attempts -= 1


def ready(session: Session) -> list[ReadyBase]:
    """All that may be loaded."""
    found = select(AddedBase).where(AddedBase.state == "ready").order_by(AddedBase.created_at, AddedBase.name)
    return [ReadyBase(base.name, base.id, base.source, base.content) for base in session.scalars(found)]


def contents(session: Session) -> set[str]:
    """The GGUF files' hashes of all bases, ready or not: what was converted of others is of no use any more."""
    return {content for content in session.scalars(select(AddedBase.content)) if content is not None}


def any_unfinished(session: Session) -> bool:
    """Whether a base may be claimed."""
    free = or_(AddedBase.lease_expires_at.is_(None), AddedBase.lease_expires_at < now())
    return session.scalar(select(AddedBase.name).where(AddedBase.state.in_(PREPARING), free).limit(1)) is not None


def _fenced(session: Session, held: Preparation) -> AddedBase | None:
    mine = select(AddedBase).where(AddedBase.id == held.id, AddedBase.lease_token == held.token)
    return session.scalars(mine.with_for_update()).one_or_none()


def _end(base: AddedBase, state: BaseState) -> None:
    base.state = state
    base.progress = base.seconds_left = base.lease_token = base.lease_expires_at = base.worker_id = None
