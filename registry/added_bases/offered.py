"""Which bases are on offer: those of OSORA_BASES, and those that were added and are ready."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.added_bases.tables import AddedBase
from registry.settings import Settings


def paths(session: Session, settings: Settings) -> dict[str, str]:
    """Name to what it is loaded from: configured ones first, in their order, then added ones as they came."""
    added = session.execute(
        select(AddedBase.name, AddedBase.source)
        .where(AddedBase.state == "ready")
        .order_by(AddedBase.created_at, AddedBase.name)
    )
    configured = settings.base_paths
    return configured | {name: source for name, source in added if name not in configured}


def is_offered(session: Session, settings: Settings, name: str) -> bool:
    """Whether a base of this name may be called; for a configured one without a question to the database."""
    return name in settings.base_paths or _is_ready(session, name)


def hold(session: Session, settings: Settings, name: str) -> bool:
    """The same, and if it was added, it is not removed before the transaction ends."""
    if name in settings.base_paths:
        return True
    wanted = select(AddedBase.name).where(AddedBase.name == name, AddedBase.state == "ready")
    return session.scalar(wanted.with_for_update(read=True)) is not None


def _is_ready(session: Session, name: str) -> bool:
    return session.scalar(select(AddedBase.name).where(AddedBase.name == name, AddedBase.state == "ready")) is not None
