"""The tables of webhooks; times as in `registry.models`."""

from typing import Any, Literal

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from registry.columns import PlainText
from registry.db import now, now_seconds
from registry.models import Base

DisabledBecause = Literal["owner", "failures", "gone"]
DeliveryStatus = Literal["pending", "delivered", "failed"]


class WebhookEndpoint(Base):
    """Where a tenant wants to be told of events, and of which."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (
        Index(None, "tenant_id", "created_at", "id"),
        CheckConstraint("disabled_because IN ('owner', 'failures', 'gone')", name="disabled_because"),
    )

    id: Mapped[str] = mapped_column(PlainText(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str]
    url: Mapped[str]
    event_types: Mapped[list[str]]
    salt: Mapped[str] = mapped_column(String(160))
    """What its signing secret is derived from; see `registry.webhooks.secrets`."""
    old_salts: Mapped[list[dict[str, Any]]] = mapped_column(JSON(none_as_null=True), default=list)
    """Of secrets before, the newest first, each a `salt` that signs as well until `expires_at`."""
    created_at: Mapped[int] = mapped_column(default=now_seconds())
    updated_at: Mapped[int] = mapped_column(default=now_seconds())
    failing_since: Mapped[float | None]
    """When the first of the attempts failed since which none has got through."""
    disabled_at: Mapped[int | None]
    disabled_because: Mapped[DisabledBecause | None] = mapped_column(String(10))


class WebhookDelivery(Base):
    """An event on its way to one endpoint, and afterwards a line of that endpoint's log."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index(None, "status", "due_at"),
        Index(None, "endpoint_id", "created_at", "id"),
        CheckConstraint("status IN ('pending', 'delivered', 'failed')", name="status"),
    )

    id: Mapped[str] = mapped_column(PlainText(40), primary_key=True)
    """The `webhook-id`: the same at every attempt."""
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id"))
    event_id: Mapped[str] = mapped_column(PlainText(40))
    event_type: Mapped[str]
    data: Mapped[dict[str, Any]]
    created_at: Mapped[int] = mapped_column(default=now_seconds())
    status: Mapped[DeliveryStatus] = mapped_column(String(10), default="pending")
    due_at: Mapped[float] = mapped_column(default=now())
    attempt: Mapped[int] = mapped_column(default=0)
    """Number of the latest claim: only who made it may settle the delivery."""
    claimed_until: Mapped[float | None]
    attempts: Mapped[list[dict[str, Any]]] = mapped_column(JSON(none_as_null=True), default=list)
    """What came of each attempt: `number`, `at`, `status_code`, `seconds`, `error`."""
