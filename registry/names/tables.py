"""The tables of names: what aliases stand for, and who may call whose models."""

from typing import Any

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.columns import PlainText
from registry.db import now_seconds
from registry.models import Base


class Alias(Base):
    """A tenant's own name for a model, or for several that share its requests. What it stands for can be changed."""

    __tablename__ = "aliases"
    __table_args__ = (Index(None, "tenant_id", "created_at", "name"),)

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]
    created_at: Mapped[int] = mapped_column(default=now_seconds())
    updated_at: Mapped[int] = mapped_column(default=now_seconds())

    targets: Mapped[list["AliasTarget"]] = relationship(
        cascade="all, delete-orphan", lazy="selectin", order_by="AliasTarget.position"
    )


class AliasTarget(Base):
    """One of the models that an alias stands for. An adapter or checkpoint that is one is not deleted."""

    __tablename__ = "alias_targets"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "alias"], ["aliases.tenant_id", "aliases.name"]),
        Index(None, "target"),
    )

    tenant_id: Mapped[str] = mapped_column(PlainText(40), primary_key=True)
    alias: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    target: Mapped[str]
    """Id of an adapter or a checkpoint, or name of a base."""
    name: Mapped[str]
    """What clients call it."""
    weight: Mapped[int]

    @property
    def is_base(self) -> bool:
        """Whether it is a base: of those the name is the identity too."""
        return self.target == self.name


class AliasVersion(Base):
    """What an alias has stood for since a change, and who made it. The newest are kept, also of one that is gone."""

    __tablename__ = "alias_versions"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    alias: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    targets: Mapped[dict[str, Any]]
    """Names with their weights; none: it was deleted."""
    restored: Mapped[int | None]
    """The version that a roll-back brought back."""
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"))
    created_at: Mapped[int] = mapped_column(default=now_seconds(), index=True)


class Permission(Base):
    """Lets another tenant call an adapter or a checkpoint, and nothing else."""

    __tablename__ = "permissions"
    __table_args__ = (UniqueConstraint("target", "project_id"),)

    id: Mapped[str] = mapped_column(PlainText(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    """Whose it is."""
    target: Mapped[str] = mapped_column(PlainText(40))
    """Id of the adapter or the checkpoint."""
    project_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    """The tenant that may call it; OpenAI's clients call tenants projects."""
    created_at: Mapped[int] = mapped_column(default=now_seconds())
