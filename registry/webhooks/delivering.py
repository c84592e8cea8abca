"""Deliveries: taken with a lease, in turns, and settled by what the receiver said."""

import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import exists, func, or_, select
from sqlalchemy.orm import Session

from registry.db import now, now_seconds, take_turns
from registry.errors import NotFound
from registry.ids import new_id
from registry.paging import Order, Page, fetch_page
from registry.tenants import Principal
from registry.webhooks import endpoints
from registry.webhooks.events import EventType
from registry.webhooks.secrets import secret_of
from registry.webhooks.tables import WebhookDelivery, WebhookEndpoint

PER_TENANT = 4
"""Deliveries of one tenant that are under way at once, in all processes together; of one endpoint it is one."""

LEASE_SECONDS = 60
"""How long a process may take to send a delivery and settle it, before another one sends it again."""

_MINUTE, _HOUR = 60, 3600
_PAUSES = (5, _MINUTE, 5 * _MINUTE, 30 * _MINUTE, *(hours * _HOUR for hours in (2, 5, 10, 14, 20, 20.5)))
"""Seconds between the attempts: three days in all."""
_JITTER = 0.1
MAX_ATTEMPTS = len(_PAUSES) + 1
DISABLE_AFTER_SECONDS = 72 * _HOUR
"""An endpoint that nothing has got through to for so long is disabled."""

_SAMPLES = {"adapter.published": "adp-sample", "alias.changed": "sample"}
_GONE = 410
_LOST = "the process that sent it ended before it knew what came of it"


@dataclass(frozen=True)
class Answer:
    """What came of an attempt. `status_code` is None where nobody answered; `error` is None for a success."""

    seconds: float
    status_code: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Delivery:
    """All that it takes to send one: everything but the time of sending, which the signature needs as well."""

    id: str
    endpoint_id: str
    attempt: int
    url: str = field(repr=False)
    body: bytes = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    """The signing secrets that are valid, the newest first."""


_IS_DUE = (
    WebhookDelivery.status == "pending",
    WebhookDelivery.due_at <= now(),
    or_(WebhookDelivery.claimed_until.is_(None), WebhookDelivery.claimed_until <= now()),
    WebhookEndpoint.id == WebhookDelivery.endpoint_id,
    WebhookEndpoint.disabled_at.is_(None),
)


def any_due(session: Session) -> bool:
    """Whether `claim` may find something; it only reads."""
    return session.scalars(select(exists().where(*_IS_DUE))).one()


def claim(session: Session, limit: int) -> list[Delivery]:
    """Takes deliveries that are due for `LEASE_SECONDS` each: first of the tenants that have the fewest under way.

    One of an endpoint at a time, and `PER_TENANT` of a tenant: who answers slowly holds up its own.
    """
    take_turns(session, "claim webhooks")
    at = session.scalars(select(now())).one()
    under_way = WebhookDelivery.claimed_until > at
    busy = select(WebhookDelivery.endpoint_id).where(WebhookDelivery.status == "pending", under_way)
    by_tenant = Counter(
        session.scalars(select(WebhookEndpoint.tenant_id).where(WebhookEndpoint.id.in_(busy.distinct())))
    )
    turn = func.row_number().over(
        partition_by=WebhookDelivery.endpoint_id, order_by=(WebhookDelivery.due_at, WebhookDelivery.id)
    )
    waiting = (
        select(WebhookDelivery.id, WebhookDelivery.due_at, WebhookEndpoint.tenant_id, turn.label("turn"))
        .where(*_IS_DUE, WebhookEndpoint.id.not_in(busy))
        .subquery()
    )
    first = select(waiting.c.id, waiting.c.tenant_id).where(waiting.c.turn == 1).order_by(waiting.c.due_at)
    turns: list[tuple[int, str]] = []
    for delivery_id, tenant_id in session.execute(first):
        turns.append((by_tenant[tenant_id], delivery_id))
        by_tenant[tenant_id] += 1
    # A tenant's first comes before another's second, however long that has waited; the sort keeps the rest in order.
    turns.sort(key=lambda turn: turn[0])
    chosen = [delivery_id for before, delivery_id in turns if before < PER_TENANT][:limit]
    return [delivery for delivery_id in chosen if (delivery := _take(session, delivery_id, at)) is not None]


def settle(session: Session, delivery: Delivery, answer: Answer) -> None:
    """Writes down what came of an attempt: the delivery is done, is due again later, or is given up.

    Nothing is written if the endpoint was deleted meanwhile, or another process has taken the delivery over.
    """
    # First the endpoint, as `endpoints.delete` does, and without its key: a job that ends meanwhile does not wait.
    endpoint = session.scalars(
        select(WebhookEndpoint).where(WebhookEndpoint.id == delivery.endpoint_id).with_for_update(key_share=True)
    ).one_or_none()
    row = session.scalars(
        select(WebhookDelivery)
        .where(
            WebhookDelivery.id == delivery.id,
            WebhookDelivery.attempt == delivery.attempt,
            WebhookDelivery.status == "pending",
        )
        .with_for_update()
    ).one_or_none()
    if endpoint is None or row is None:
        return
    at = session.scalars(select(now())).one()
    _note(row, at - answer.seconds, answer)
    row.claimed_until = None
    if answer.error is None:
        row.status = "delivered"
        endpoint.failing_since = None
    else:
        _postpone(row, at)
        _count_failure(endpoint, answer, at)
    session.flush()


def list_deliveries(
    session: Session,
    principal: Principal,
    endpoint_id: str,
    *,
    after: str | None = None,
    limit: int = 20,
    order: Order = "desc",
) -> Page[WebhookDelivery]:
    """A page of an endpoint's log. Raises `NotFound` for another tenant's, and when `after` is none of it."""
    endpoint = endpoints.get(session, principal, endpoint_id)
    statement = select(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint.id)
    position = None
    if after is not None:
        start = session.scalars(statement.where(WebhookDelivery.id == after)).one_or_none()
        if start is None:
            raise NotFound(f"no delivery {after!r} to this endpoint", param="after", code="webhook_delivery_not_found")
        position = (start.created_at, start.id)
    keys = (WebhookDelivery.created_at, WebhookDelivery.id)
    return fetch_page(session, statement, keys, after=position, limit=limit, order=order)


def sample(session: Session, principal: Principal, endpoint_id: str, type: EventType) -> Delivery:
    """An event that never was, to try an endpoint with; nothing is written. Raises `NotFound`."""
    endpoint = endpoints.get(session, principal, endpoint_id)
    at = session.scalars(select(now_seconds())).one()
    body = _body(new_id("evt_"), type, at, {"id": _SAMPLES.get(type, "ftjob-sample")})
    return Delivery(new_id("wh_"), endpoint.id, 1, endpoint.url, body, _secrets(session, endpoint, at))


def _take(session: Session, delivery_id: str, at: float) -> Delivery | None:
    """The delivery, claimed; None if it is given up instead, because its last attempt died with its process."""
    found = session.execute(
        select(WebhookDelivery, WebhookEndpoint)
        .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .where(WebhookDelivery.id == delivery_id, WebhookDelivery.status == "pending")
        .with_for_update(of=WebhookDelivery)
    ).one_or_none()
    if found is None:  # a moment ago it was there; its endpoint has been deleted
        return None
    row, endpoint = found
    if row.claimed_until is not None:
        _note(row, row.claimed_until - LEASE_SECONDS, Answer(seconds=LEASE_SECONDS, error=_LOST))
    if row.attempt >= MAX_ATTEMPTS:
        row.status, row.claimed_until = "failed", None
        return None
    row.attempt += 1
    row.claimed_until = at + LEASE_SECONDS
    body = _body(row.event_id, row.event_type, row.created_at, row.data)
    return Delivery(row.id, endpoint.id, row.attempt, endpoint.url, body, _secrets(session, endpoint, at))


def _postpone(row: WebhookDelivery, at: float) -> None:
    if row.attempt >= MAX_ATTEMPTS:
        row.status = "failed"
    else:
        # Never earlier: that the last attempt comes after three days is what `DISABLE_AFTER_SECONDS` counts on.
        row.due_at = at + _PAUSES[row.attempt - 1] * (1 + random.uniform(0, _JITTER))


def _count_failure(endpoint: WebhookEndpoint, answer: Answer, at: float) -> None:
    if endpoint.failing_since is None:
        endpoint.failing_since = at
    gone, failing = answer.status_code == _GONE, at - endpoint.failing_since >= DISABLE_AFTER_SECONDS
    if endpoint.disabled_at is None and (gone or failing):
        endpoint.disabled_at = cast(int, now_seconds())
        endpoint.disabled_because = "gone" if gone else "failures"


def _note(row: WebhookDelivery, at: float, answer: Answer) -> None:
    noted = {
        "number": row.attempt,
        "at": round(at),
        "status_code": answer.status_code,
        "seconds": round(answer.seconds, 3),
        "error": answer.error,
    }
    row.attempts = [*row.attempts, noted]  # a list that is changed in place would not be written


def _body(event_id: str, type: str, created_at: int, data: dict[str, Any]) -> bytes:
    """The same bytes at every attempt."""
    event = {"id": event_id, "object": "event", "created_at": created_at, "type": type, "data": data}
    return json.dumps(event, separators=(",", ":")).encode()


def _secrets(session: Session, endpoint: WebhookEndpoint, at: float) -> tuple[str, ...]:
    old = [old["salt"] for old in endpoint.old_salts if at < old["expires_at"]]
    return tuple(secret_of(session, salt) for salt in (endpoint.salt, *old))
