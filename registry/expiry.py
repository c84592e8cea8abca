"""When retention will delete adapters and checkpoints, as far as that is known now."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.holds import held_by
from registry.models import TERMINAL, Job
from registry.references import AdapterRef
from registry.settings import Settings

_DAY = 86400


def expiries(session: Session, settings: Settings, refs: Sequence[AdapterRef]) -> dict[str, int]:
    """Unix seconds by id. What is missing stays: by the settings, because its job is live, or because it is held."""
    if settings.adapter_retention_days is None and not any(ref.is_checkpoint for ref in refs):
        return {}
    held = held_by(session, {ref.tenant_id for ref in refs})
    ended = select(Job.id, Job.finished_at).where(
        Job.status.in_(TERMINAL), Job.id.in_({ref.job_id for ref in refs if ref.is_checkpoint})
    )
    ends: dict[str | None, int | None] = {job_id: at for job_id, at in session.execute(ended)}
    found: dict[str, int] = {}
    for ref in refs:
        days = settings.checkpoint_retention_days if ref.is_checkpoint else settings.adapter_retention_days
        start = ends.get(ref.job_id) if ref.is_checkpoint else ref.created_at
        if days is not None and start is not None and ref.id not in held:
            found[ref.id] = round(start + days * _DAY)
    return found
