"""What goes with a file or an adapter: all that other rows hold of its content or its names.

Jobs stay, with their settings, their metrics and the ids of what they used and made: a history without them would have
holes. What they quote of a row, and what their models said, does not.
"""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from registry import idempotency
from registry.models import Adapter, File, Job, JobAttempt, JobEvent
from registry.names.tables import AliasVersion, Permission
from registry.upload_tables import Upload
from registry.webhooks.tables import WebhookDelivery, WebhookEndpoint

REMOVED = "what was said here of the file was deleted with it"
SAMPLE = "Sample after step "
"""What the message of a sample's event begins with."""


def scrub_files(session: Session, files: Sequence[File]) -> None:
    """Removes what is left of files that are deleted, by the ids of rows that nobody else changes meanwhile."""
    ids = [file.id for file in files]
    session.execute(update(Upload).where(Upload.file_id.in_(ids)).values(filename="deleted"))
    uploads = session.execute(select(Upload.tenant_id, Upload.id).where(Upload.file_id.in_(ids)))
    for tenant_id, made in [*((file.tenant_id, file.id) for file in files), *uploads]:
        idempotency.forget(session, tenant_id, made)
    users = or_(Job.training_file_id.in_(ids), Job.validation_file_id.in_(ids))
    jobs = session.scalars(select(Job).where(users).with_for_update()).all()
    refused = [job for job in jobs if _quotes_rows(job.error)]
    for job in refused:
        job.error = {**(job.error or {}), "message": REMOVED}
    of_refused = JobEvent.job_id.in_([job.id for job in refused])
    message = f"The job failed: {REMOVED}"
    session.execute(update(JobEvent).where(of_refused, JobEvent.level == "error").values(message=message, data=None))
    job_ids = [job.id for job in jobs]
    for attempt in session.scalars(select(JobAttempt).where(JobAttempt.job_id.in_(job_ids))):
        if _quotes_rows(attempt.error):
            attempt.error, attempt.reason = {**(attempt.error or {}), "message": REMOVED}, REMOVED
    _delete_samples(session, job_ids)
    session.flush()


def scrub_adapters(session: Session, adapters: Sequence[Adapter]) -> None:
    """Removes what is left of adapters that are deleted: who may call them, what they said, and their names."""
    names = {adapter.name: adapter.id for adapter in adapters}
    ids = [*names.values()]
    session.execute(delete(Permission).where(Permission.target.in_(ids)))
    _delete_samples(session, [adapter.job_id for adapter in adapters if adapter.job_id is not None])
    for tenant_id in {adapter.tenant_id for adapter in adapters}:
        endpoints = select(WebhookEndpoint.id).where(WebhookEndpoint.tenant_id == tenant_id)
        told_of = WebhookDelivery.data["id"].as_string().in_(ids)
        session.execute(delete(WebhookDelivery).where(WebhookDelivery.endpoint_id.in_(endpoints), told_of))
        for version in session.scalars(select(AliasVersion).where(AliasVersion.tenant_id == tenant_id)):
            if not names.keys().isdisjoint(version.targets):
                version.targets = {names.get(name, name): weight for name, weight in version.targets.items()}
    for adapter in adapters:
        idempotency.forget(session, adapter.tenant_id, adapter.id, name=adapter.name)
    session.flush()


def _delete_samples(session: Session, job_ids: Collection[str]) -> None:
    session.execute(delete(JobEvent).where(JobEvent.job_id.in_(job_ids), JobEvent.message.startswith(SAMPLE)))


def _quotes_rows(error: dict[str, Any] | None) -> bool:
    """Whether it may: only a fault of the tenant's own is told in the words of its rows."""
    return error is not None and error["fault"] == "user"
