"""What a tenant has stored now."""

from dataclasses import dataclass

from sqlalchemy import Select, case, func, select
from sqlalchemy.orm import Session

from registry.errors import NotFound
from registry.models import Adapter, Checkpoint, File, Job, Tenant
from registry.tenants import Principal
from registry.upload_tables import Upload, UploadPart


@dataclass(frozen=True)
class Stored:
    """Bytes, as the rows say it."""

    files: int
    uploads: int
    adapters: int
    checkpoints: int


def whose(session: Session, principal: Principal, name: str | None) -> str:
    """The id of the tenant that is named, by default the principal's own.

    Raises:
        Forbidden: another tenant was named by somebody who is no operator.
        NotFound: there is no such tenant.
    """
    if name in (None, principal.tenant_name):
        return principal.tenant_id
    principal.require("operator")
    found = session.scalars(select(Tenant.id).where(Tenant.name == name)).one_or_none()
    if found is None:
        raise NotFound(f"no tenant {name!r}", param="tenant", next_action="GET /usage?group_by=tenant names them")
    return found


def stored(session: Session, tenant_id: str) -> Stored:
    """What a tenant's files, unfinished uploads, adapters and checkpoints take."""
    state = case((Checkpoint.object_key.is_not(None), Checkpoint.bytes), else_=0)
    parts = select(func.sum(UploadPart.bytes)).join(Upload, Upload.id == UploadPart.upload_id)
    checkpoints = select(func.sum(state + Checkpoint.adapter_bytes)).join(Job, Job.id == Checkpoint.job_id)

    def total(statement: Select[int]) -> int:
        return int(session.scalar(statement) or 0)

    return Stored(
        files=total(select(func.sum(File.bytes)).where(File.tenant_id == tenant_id)),
        uploads=total(parts.where(Upload.tenant_id == tenant_id)),
        adapters=total(select(func.sum(Adapter.bytes)).where(Adapter.tenant_id == tenant_id)),
        checkpoints=total(checkpoints.where(Job.tenant_id == tenant_id)),
    )
