"""The table of limits that are not the installation's."""

from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from registry.columns import PlainText
from registry.db import now_seconds
from registry.models import Base


class LimitOverride(Base):
    """Limits of one tenant in place of the installation's, or of one key beside its tenant's."""

    __tablename__ = "limit_overrides"

    owner_id: Mapped[str] = mapped_column(PlainText(40), primary_key=True)
    """The tenant's id, or the key's."""
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    """Whose it is, or whose key."""
    values: Mapped[dict[str, Any]]
    """By name, as in `registry.limits.values.Limits`; null is no limit."""
    updated_at: Mapped[int] = mapped_column(default=now_seconds(), onupdate=now_seconds())
