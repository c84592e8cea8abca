"""A request that is sent again gets the answer of the first one: nothing is made twice.

A request is recognised in two ways. With an `Idempotency-Key` it says itself which one it is. Without one, a client
that says "this is my n-th retry" sent the same route and body before, with the same API key.

A row stands for a request before it is carried out; whoever has its token does so. The answer is written in the very
transaction that writes what was made: after a crash there are both or neither. The token fences, as a job's does: of
two that carry the same request out, because one seemed to be lost, only one can commit. Who fails takes the row away,
and the next retry is carried out.
"""

from dataclasses import dataclass
from secrets import token_hex
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, case, delete, or_, select, update
from sqlalchemy.orm import Session

from registry.db import now, take_turns
from registry.errors import Conflict, Unavailable
from registry.models import ApiKey, IdempotentRequest

LEASE_SECONDS = 15
"""How long whoever carries a request out may be silent before a retry takes it over."""

RETRY_DAYS = 20 / (24 * 60)
"""How long after its answer, or its latest retry, a request is known by its body. OpenAI's clients wait 10 minutes for
an answer and up to 2 before they ask again, and a large body takes its time to arrive."""

KEY_DAYS = 1
"""How long a request is known by its `Idempotency-Key`."""

_DAY = 86_400


@dataclass(frozen=True)
class Sent:
    """What a request is recognised by."""

    api_key_id: str
    fingerprint: str
    """A hash of route and body."""
    idempotency_key: str | None
    retry: int
    """Which retry the client says that it is; 0 for a first attempt."""


@dataclass(frozen=True)
class Claim:
    """What a request finds: it is to be carried out (`mine`), another does so (`running`, or did and is `lost`), or it
    is `done`."""

    id: int
    state: Literal["mine", "running", "lost", "done"]
    token: str | None = None
    answer: str | None = None


def claim(session: Session, sent: Sent, known: int | None = None) -> Claim:
    """What becomes of this request; `known` is the row that it was found to be a retry of, if it was.

    Raises `Conflict` for a key that came with another route or body.
    """
    take_turns(session, f"{sent.api_key_id} {sent.idempotency_key or sent.fingerprint}")
    row = _of_before(session, sent, known)
    if row is None:
        row = IdempotentRequest(
            api_key_id=sent.api_key_id,
            idempotency_key=sent.idempotency_key,
            fingerprint=sent.fingerprint,
            retries=sent.retry,
            lease_expires_at=0.0,
            token="",
        )
        session.add(row)
        session.flush()
    else:
        row.retries = max(row.retries, sent.retry)
        row.seen_at = now()
    found = _claim_of(row, session.scalars(select(now())).one())
    if found.state != "lost":
        return found
    row.token = token_hex(16)
    row.lease_expires_at = now() + LEASE_SECONDS
    session.flush()
    return Claim(row.id, "mine", row.token)


def look(session: Session, known: int) -> Claim | None:
    """How a request that somebody else carries out is coming along; None if that failed."""
    found = session.execute(select(IdempotentRequest, now()).where(IdempotentRequest.id == known)).one_or_none()
    return None if found is None else _claim_of(*found)


def renew(session: Session, mine: Claim) -> None:
    """Says that the request is still being carried out."""
    session.execute(_held(mine).values(lease_expires_at=now() + LEASE_SECONDS, seen_at=now()))


def keep(session: Session, mine: Claim, answer: str | None) -> None:
    """Writes the answer, in the transaction that writes what was made; None for one that must not be stored.

    Raises `Unavailable` if the request was taken over: then nothing of that transaction may stay.
    """
    done = _held(mine).values(token=None, answer=answer, seen_at=now()).returning(IdempotentRequest.id)
    if session.scalars(done).one_or_none() is None:
        raise Unavailable(
            "a retry of this request has taken its place",
            code="request_superseded",
            next_action="send it again for the answer",
        )


def release(session: Session, mine: Claim) -> None:
    """Forgets a request that failed. Nothing happens to one whose answer was written."""
    session.execute(
        delete(IdempotentRequest).where(IdempotentRequest.id == mine.id, IdempotentRequest.token == mine.token)
    )


def forget(session: Session, tenant_id: str, made: str, *, name: str | None = None) -> None:
    """Forgets what made a thing that is deleted now: whoever makes an equal one next, in a retry, wants a new one.

    `made` is its id, which its answer begins with. Who gave an `Idempotency-Key` has said that it is the same request:
    that it was carried out is kept, its answer is not, nor is any other that has the thing's `name` in it.
    """
    of_tenant = IdempotentRequest.api_key_id.in_(select(ApiKey.id).where(ApiKey.tenant_id == tenant_id))
    tells_of_it = IdempotentRequest.answer.startswith(f'{{"id":"{made}"', autoescape=True)
    session.execute(
        delete(IdempotentRequest).where(of_tenant, IdempotentRequest.idempotency_key.is_(None), tells_of_it)
    )
    if name is not None:
        tells_of_it = or_(tells_of_it, IdempotentRequest.answer.contains(f'"{name}"', autoescape=True))
    session.execute(update(IdempotentRequest).where(of_tenant, tells_of_it).values(answer=None))


def forgettable(before: ColumnElement[float]) -> Select[Any]:
    """Ids of the requests that are no longer known; `before` is `RETRY_DAYS` ago."""
    is_old = IdempotentRequest.created_at < before - (KEY_DAYS - RETRY_DAYS) * _DAY
    return select(IdempotentRequest.id).where(
        IdempotentRequest.seen_at < before, or_(IdempotentRequest.idempotency_key.is_(None), is_old)
    )


def _of_before(session: Session, sent: Sent, known: int | None) -> IdempotentRequest | None:
    rows = select(IdempotentRequest).where(IdempotentRequest.api_key_id == sent.api_key_id).with_for_update()
    if known is not None:
        row = session.scalars(rows.where(IdempotentRequest.id == known)).one_or_none()
        if row is not None:
            return row
    if sent.idempotency_key is not None:
        return _of_key(session, sent, rows)
    if not sent.retry:
        return None
    # Several requests with the same body may be out: each retry gets one that no other has been given, if there is one.
    is_another = case((IdempotentRequest.retries < sent.retry, 0), else_=1)
    return session.scalars(
        rows.where(
            IdempotentRequest.fingerprint == sent.fingerprint,
            IdempotentRequest.idempotency_key.is_(None),
            IdempotentRequest.seen_at > now() - RETRY_DAYS * _DAY,
        )
        .order_by(is_another, IdempotentRequest.retries.desc(), IdempotentRequest.id)
        .limit(1)
    ).one_or_none()


def _of_key(session: Session, sent: Sent, rows: Select[IdempotentRequest]) -> IdempotentRequest | None:
    row = session.scalars(rows.where(IdempotentRequest.idempotency_key == sent.idempotency_key)).one_or_none()
    if row is None:
        return None
    if row.created_at < session.scalars(select(now())).one() - KEY_DAYS * _DAY and not row.token:
        session.delete(row)
        session.flush()
        return None
    if row.fingerprint != sent.fingerprint:
        raise Conflict(
            f"the Idempotency-Key {sent.idempotency_key!r} came with another request before",
            code="idempotency_key_reused",
            next_action="send the same request as then, or this one with another key",
        )
    return row


def _claim_of(row: IdempotentRequest, moment: float) -> Claim:
    if row.token is None:
        return Claim(row.id, "done", answer=row.answer)
    return Claim(row.id, "lost" if row.lease_expires_at < moment else "running")


def _held(mine: Claim) -> Any:
    return update(IdempotentRequest).where(IdempotentRequest.id == mine.id, IdempotentRequest.token == mine.token)
