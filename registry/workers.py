"""Which workers there are: each says so with its heartbeat, and one that falls silent is forgotten."""

from collections.abc import Mapping, Sequence

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from registry.db import now
from registry.models import Worker

_FORGOTTEN_SECONDS = 24 * 3600


def seen(
    session: Session,
    worker_id: str,
    bases: Sequence[str],
    slots: int,
    identities: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Notes that a worker is there now, training up to `slots` jobs at once of each of `bases`.

    `identities` are the fingerprints of base and basis, and of the smaller bases that it has grown from, by the base's
    name.
    """
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    statement = dialect.insert(Worker).values(
        id=worker_id,
        bases=list(bases),
        identities={name: list(told) for name, told in (identities or {}).items()},
        slots=slots,
        seen_at=now(),
    )
    told = {name: statement.excluded[name] for name in ("bases", "identities", "slots", "seen_at")}
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=told))


def gone(session: Session, worker_id: str) -> None:
    """Strikes off a worker that has stopped; fine when it is not there."""
    session.execute(delete(Worker).where(Worker.id == worker_id))


def live(session: Session, base: str, within_seconds: float) -> list[Worker]:
    """The workers of a base that were seen within this time."""
    heard_of = session.scalars(select(Worker).where(Worker.seen_at >= now() - within_seconds))
    # Each database has its own way to look into a list, and workers are few.
    return [worker for worker in heard_of if base in worker.bases]


def forget_silent(session: Session) -> None:
    """Strikes off the workers that have been silent for a day: those that were killed could not say goodbye."""
    session.execute(delete(Worker).where(Worker.seen_at < now() - _FORGOTTEN_SECONDS))
