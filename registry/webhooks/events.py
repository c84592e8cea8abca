"""The events that webhooks tell of, and how one is written down."""

from typing import Any, Literal, get_args

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.ids import new_id
from registry.webhooks.tables import WebhookDelivery, WebhookEndpoint

EventType = Literal[
    "fine_tuning.job.succeeded",
    "fine_tuning.job.failed",
    "fine_tuning.job.cancelled",
    "fine_tuning.job.paused",
    "adapter.published",
    "alias.changed",
]
"""The first three are OpenAI's."""
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)


def record(session: Session, tenant_id: str, type: EventType, data: dict[str, Any]) -> None:
    """Has the tenant's endpoints that want such events told of one, if this transaction commits.

    `data` becomes the body's `data`; by `data["id"]` a receiver finds what the event is about.
    """
    enabled = select(WebhookEndpoint).where(
        WebhookEndpoint.tenant_id == tenant_id, WebhookEndpoint.disabled_at.is_(None)
    )
    # One that is being deleted is waited for: a delivery to it could not be written, and would take the change with it.
    held = enabled.order_by(WebhookEndpoint.id).with_for_update(read=True, key_share=True)
    event_id = new_id("evt_")
    for endpoint in session.scalars(held).all():
        if type in endpoint.event_types:
            delivery = WebhookDelivery(
                id=new_id("wh_"), endpoint_id=endpoint.id, event_id=event_id, event_type=type, data=data
            )
            session.add(delivery)
    session.flush()
