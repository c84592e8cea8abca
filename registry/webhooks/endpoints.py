"""A tenant's webhook endpoints."""

from collections.abc import Sequence
from typing import cast

from sqlalchemy import Select, func, select
from sqlalchemy import delete as delete_rows
from sqlalchemy.orm import Session

from registry import audit
from registry.db import now, now_seconds, take_turns
from registry.errors import Conflict, NotFound
from registry.ids import new_id
from registry.paging import Order, Page, fetch_page
from registry.settings import Settings
from registry.tenants import Principal
from registry.webhooks import destination
from registry.webhooks.events import EventType
from registry.webhooks.secrets import new_salt, sealed
from registry.webhooks.tables import WebhookDelivery, WebhookEndpoint

MAX_ENDPOINTS = 20
"""Of one tenant: each is a row more in every transaction that ends a job."""

MAX_OLD_SECRETS = 4
"""Of one endpoint at a time: each is a signature more in every webhook."""

_OVERLAP_SECONDS = 24 * 3600


def create(
    session: Session, principal: Principal, settings: Settings, *, name: str, url: str, event_types: Sequence[EventType]
) -> WebhookEndpoint:
    """A new endpoint, enabled.

    Raises:
        InvalidRequest: webhooks may not go to the URL.
        Conflict: the tenant has too many endpoints.
    """
    destination.parse(url, allow_private=settings.webhooks_allow_private)
    take_turns(session, f"webhook endpoints of {principal.tenant_id}")
    if session.scalars(select(func.count()).select_from(_of(principal).subquery())).one() >= MAX_ENDPOINTS:
        raise Conflict(
            f"there are {MAX_ENDPOINTS} webhook endpoints already, and no more are possible",
            code="too_many_webhook_endpoints",
            next_action="delete one, or let one receive more types of events",
        )
    endpoint = WebhookEndpoint(
        id=new_id("webhook-"),
        tenant_id=principal.tenant_id,
        name=name,
        url=url,
        event_types=list(dict.fromkeys(event_types)),
        salt=new_salt(session),
    )
    session.add(endpoint)
    session.flush()
    audit.record(session, principal, "webhook.created", "webhook", endpoint.id)
    return endpoint


def get(session: Session, principal: Principal, endpoint_id: str, *, param: str = "endpoint_id") -> WebhookEndpoint:
    """An endpoint of the tenant's. Raises `NotFound`, naming the field `param`."""
    endpoint = session.scalars(_of(principal).where(WebhookEndpoint.id == endpoint_id)).one_or_none()
    if endpoint is None:
        raise _not_found(endpoint_id, param)
    return endpoint


def list_endpoints(
    session: Session, principal: Principal, *, after: str | None = None, limit: int = 20, order: Order = "desc"
) -> Page[WebhookEndpoint]:
    """A page of the tenant's endpoints. Raises `NotFound` when `after` is none of them."""
    start = None if after is None else get(session, principal, after, param="after")
    position = None if start is None else (start.created_at, start.id)
    keys = (WebhookEndpoint.created_at, WebhookEndpoint.id)
    return fetch_page(session, _of(principal), keys, after=position, limit=limit, order=order)


def update(
    session: Session,
    principal: Principal,
    settings: Settings,
    endpoint_id: str,
    *,
    name: str | None = None,
    url: str | None = None,
    event_types: Sequence[EventType] | None = None,
    enabled: bool | None = None,
) -> WebhookEndpoint:
    """Changes what is given. A new URL begins without the failures of the old one; what still waits goes there too.

    Raises `NotFound`, and `InvalidRequest` for a URL that webhooks may not go to.
    """
    endpoint = _lock(session, principal, endpoint_id)
    wanted = {
        "name": name,
        "url": url,
        "event_types": None if event_types is None else list(dict.fromkeys(event_types)),
    }
    changed = {
        field: value for field, value in wanted.items() if value is not None and getattr(endpoint, field) != value
    }
    if "url" in changed:
        destination.parse(str(url), allow_private=settings.webhooks_allow_private)
        endpoint.failing_since = None
        if endpoint.disabled_because != "owner" and enabled is None:
            enabled = True
    for field, value in changed.items():
        setattr(endpoint, field, value)
    switched = _set_enabled(endpoint, enabled)
    if switched or changed:
        endpoint.updated_at = cast(int, now_seconds())
        fields = sorted({*changed, *(["enabled"] if switched else [])})
        audit.record(session, principal, "webhook.changed", "webhook", endpoint.id, fields=fields)
    session.flush()
    return endpoint


def delete(session: Session, principal: Principal, endpoint_id: str) -> None:
    """Deletes an endpoint with its log and what it was still to be told. Raises `NotFound`."""
    statement = _of(principal).where(WebhookEndpoint.id == endpoint_id).with_for_update()
    endpoint = session.scalars(statement).one_or_none()
    if endpoint is None:
        raise _not_found(endpoint_id, "endpoint_id")
    session.execute(delete_rows(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint.id))
    session.delete(endpoint)
    audit.record(session, principal, "webhook.deleted", "webhook", endpoint.id)


def rotate_secret(session: Session, principal: Principal, endpoint_id: str, *, keep_old: bool) -> WebhookEndpoint:
    """Gives an endpoint a new secret. With `keep_old` the old one signs too for a day, and those before it for the rest
    of theirs; without, none of them does.

    Raises:
        NotFound: no such endpoint of the tenant's.
        Conflict: with `keep_old`, there are too many old ones.
    """
    endpoint = _lock(session, principal, endpoint_id)
    at = session.scalars(select(now())).one()
    older = [old for old in endpoint.old_salts if at < old["expires_at"]]
    if keep_old and len(older) >= MAX_OLD_SECRETS:
        raise Conflict(
            f"{len(older)} old secrets of this endpoint are valid already, and no more are possible",
            code="too_many_old_secrets",
            next_action="wait until one expires, a day after it was replaced, or rotate without keeping any",
        )
    endpoint.old_salts = [{"salt": endpoint.salt, "expires_at": at + _OVERLAP_SECONDS}, *older] if keep_old else []
    endpoint.salt = new_salt(session)
    endpoint.updated_at = cast(int, now_seconds())
    audit.record(session, principal, "webhook.secret_rotated", "webhook", endpoint.id, old_kept=keep_old)
    session.flush()
    return endpoint


def seal_anew(session: Session) -> None:
    """Has the signing secrets of all tenants' endpoints hang on the current server secret; none of them changes."""
    for endpoint in session.scalars(select(WebhookEndpoint).with_for_update()):
        endpoint.salt = sealed(session, endpoint.salt)
        endpoint.old_salts = [{**old, "salt": sealed(session, old["salt"])} for old in endpoint.old_salts]
    session.flush()


def _set_enabled(endpoint: WebhookEndpoint, enabled: bool | None) -> bool:
    """Whether that was a change."""
    if enabled is None or enabled == (endpoint.disabled_at is None):
        return False
    endpoint.disabled_at = None if enabled else cast(int, now_seconds())
    endpoint.disabled_because = None if enabled else "owner"
    endpoint.failing_since = None
    return True


def _lock(session: Session, principal: Principal, endpoint_id: str) -> WebhookEndpoint:
    # Without its key: a job that ends meanwhile does not wait.
    statement = _of(principal).where(WebhookEndpoint.id == endpoint_id).with_for_update(key_share=True)
    endpoint = session.scalars(statement).one_or_none()
    if endpoint is None:
        raise _not_found(endpoint_id, "endpoint_id")
    return endpoint


def _of(principal: Principal) -> Select[WebhookEndpoint]:
    return select(WebhookEndpoint).where(WebhookEndpoint.tenant_id == principal.tenant_id)


def _not_found(endpoint_id: str, param: str) -> NotFound:
    return NotFound(
        f"no webhook endpoint {endpoint_id!r}",
        param=param,
        code="webhook_endpoint_not_found",
        next_action="list the webhook endpoints for their ids",
    )
