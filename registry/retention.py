"""Deletes rows that have expired, and stored objects that no row names.

A row is deleted first and its object after that has committed, so no row ever points at nothing. A crash in between
leaves an object without a row (an orphan), and so does an upload whose row was never written: `delete_orphans` finds
both. All of it is idempotent and may run in every worker at once; each transaction is short, because SQLite has one
write lock.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from registry import adapters, audit_log, files, idempotency, uploads, workers
from registry.context import Registry
from registry.db import now
from registry.holds import held, unheld
from registry.models import (
    TERMINAL,
    Adapter,
    Checkpoint,
    File,
    IdempotentRequest,
    Job,
    JobEvent,
)
from registry.names import aliases, permissions
from registry.upload_tables import Upload, UploadPart
from registry.webhooks.tables import WebhookDelivery, WebhookEndpoint

logger = logging.getLogger(__name__)

_BATCH = 200

# Never `basis/`, nor `bases/` as version 0.1.0 called it: those have no rows, and adapters are tied to them.
_UPLOADED = ("files", uploads.FOLDER)
_OF_JOBS = ("adapters", "checkpoints", "results")
"""The second part of these keys is the id of the job whose attempts put them there, or of the tenant who did."""


def maintain(registry: Registry) -> None:
    """Deletes expired rows, orphaned objects, dead workers, and what is left of dead names. Once an hour is enough."""
    expired, orphans = expire(registry), delete_orphans(registry)
    if expired or orphans:
        logger.info("retention: %d rows had expired, %d objects had no row", expired, orphans)
    with registry.transaction() as session:
        workers.forget_silent(session)
        aliases.forget_deleted(session)
        permissions.forget_gone(session)
    audit_log.trim(registry)


def expire(registry: Registry) -> int:
    """Deletes what is older than the settings allow, with its objects; returns how many rows that were.

    Never a file, an adapter or a checkpoint that a live job uses, nor what an alias names, nor a checkpoint or an event
    of a live job, nor a webhook that is still tried.
    """
    settings = registry.settings
    return (
        _expire(registry, 0, _expired_files, _remove_files)
        + _expire(registry, uploads.KEPT_DAYS, _expired_uploads, _remove_uploads)
        + _expire(registry, idempotency.RETRY_DAYS, idempotency.forgettable, _remove_requests)
        + _expire(registry, settings.file_retention_days, _old_files, _remove_files)
        + _expire(registry, settings.adapter_retention_days, _old_adapters, _remove_adapters)
        + _expire(registry, settings.checkpoint_retention_days, _old_checkpoints, _remove_checkpoints)
        + _expire(registry, settings.event_retention_days, _old_events, _remove_events)
        + _expire(registry, settings.webhook_retention_days, _old_deliveries, _remove_deliveries)
    )


def delete_orphans(registry: Registry) -> int:
    """Deletes objects older than `orphan_grace_hours` that no row names, and unfinished ones; returns how many.

    Nothing of a job that has not ended: its attempts put an object there before they name it.
    """
    with registry.reading() as session:
        before = session.scalars(select(now() - registry.settings.orphan_grace_hours * 3600)).one()
    deleted = registry.store.clear_unfinished(before)
    for prefix in (*_UPLOADED, *_OF_JOBS):
        old = (found.key for found in registry.store.list(prefix) if found.modified_at < before)
        for keys in _batches(old):
            for key in _without_a_row(registry, keys):
                registry.store.delete(key)
                deleted += 1
    return deleted


_Find = Callable[[ColumnElement[float]], Select[Any]]
"""From a time to the primary keys of what is older than that, and free to go."""
_Remove = Callable[[Session, Sequence[Any]], Sequence[Sequence[str | None]]]
"""Deletes the rows with these keys that nobody else is busy with; for each, the keys of its objects."""


def _expire(registry: Registry, days: float | None, find: _Find, remove: _Remove) -> int:
    """Batch by batch, until nothing is left or what is left is in other hands."""
    if days is None:
        return 0
    expired = find(now() - days * 86400).limit(_BATCH)
    removed = 0
    while True:
        # Looking may take a while and so takes no write lock; `remove` looks again where things may have changed.
        with registry.reading() as session:
            ids = session.scalars(expired).all()
        with registry.transaction() as session:
            gone = remove(session, ids)
        for key in chain.from_iterable(gone):
            if key is not None:
                registry.store.delete(key)
        removed += len(gone)
        if not gone:
            return removed


def _old_files(before: ColumnElement[float]) -> Select[Any]:
    return _unused_files().where(File.created_at < before)


def _expired_files(before: ColumnElement[float]) -> Select[Any]:
    return _unused_files().where(File.expires_at <= before)


def _unused_files() -> Select[Any]:
    live = Job.status.not_in(TERMINAL)
    trained_on = select(Job.training_file_id).where(live)
    # Without the check for NULL, one job without a validation file would make every file look used.
    validated_on = select(Job.validation_file_id).where(live, Job.validation_file_id.is_not(None))
    return select(File.id).where(File.id.not_in(trained_on), File.id.not_in(validated_on))


def _remove_files(session: Session, ids: Sequence[Any]) -> Sequence[Sequence[str | None]]:
    locked = _locked(session, File.id, ids)
    used = files.live_users(session, locked)
    unused = [file_id for file_id in locked if file_id not in used]
    old = session.scalars(select(File).where(File.id.in_(unused))).all()
    files.remove(session, None, old)
    return [[file.object_key] for file in old]


def _expired_uploads(before: ColumnElement[float]) -> Select[Any]:
    return select(Upload.id).where(Upload.expires_at < before)


def _remove_uploads(session: Session, ids: Sequence[Any]) -> Sequence[Sequence[str | None]]:
    locked = _locked(session, Upload.id, ids)
    keys = uploads.remove_parts(session, locked)
    session.execute(delete(Upload).where(Upload.id.in_(locked)))
    return [keys, *[[]] * (len(locked) - 1)] if locked else []


def _remove_requests(session: Session, ids: Sequence[Any]) -> Sequence[Sequence[str | None]]:
    locked = _locked(session, IdempotentRequest.id, ids)
    session.execute(delete(IdempotentRequest).where(IdempotentRequest.id.in_(locked)))
    return [[]] * len(locked)


def _old_adapters(before: ColumnElement[float]) -> Select[Any]:
    return select(Adapter.id).where(Adapter.created_at < before, Adapter.id.not_in(held()))


def _remove_adapters(session: Session, ids: Sequence[Any]) -> Sequence[Sequence[str | None]]:
    free = unheld(session, _locked(session, Adapter.id, ids))
    return [[key] for key in adapters.remove(session, None, free)]


def _old_checkpoints(before: ColumnElement[float]) -> Select[Any]:
    return select(Checkpoint.id).where(Checkpoint.job_id.in_(_ended(before)), Checkpoint.id.not_in(held()))


def _remove_checkpoints(session: Session, ids: Sequence[Any]) -> Sequence[Sequence[str | None]]:
    free = unheld(session, _locked(session, Checkpoint.id, ids))
    statement = delete(Checkpoint).where(Checkpoint.id.in_(free))
    return session.execute(statement.returning(Checkpoint.object_key, Checkpoint.adapter_key)).all()


def _old_events(before: ColumnElement[float]) -> Select[Any]:
    return select(JobEvent.id).where(JobEvent.job_id.in_(_ended(before)))


def _remove_events(session: Session, ids: Sequence[Any]) -> Sequence[Sequence[str | None]]:
    locked = _locked(session, JobEvent.id, ids)
    session.execute(delete(JobEvent).where(JobEvent.id.in_(locked)))
    return [[]] * len(locked)


def _old_deliveries(before: ColumnElement[float]) -> Select[Any]:
    disabled = select(WebhookEndpoint.id).where(WebhookEndpoint.disabled_at.is_not(None))
    over = or_(WebhookDelivery.status != "pending", WebhookDelivery.endpoint_id.in_(disabled))
    return select(WebhookDelivery.id).where(WebhookDelivery.created_at < before, over)


def _remove_deliveries(session: Session, ids: Sequence[Any]) -> Sequence[Sequence[str | None]]:
    locked = _locked(session, WebhookDelivery.id, ids)
    session.execute(delete(WebhookDelivery).where(WebhookDelivery.id.in_(locked)))
    return [[]] * len(locked)


def _ended(before: ColumnElement[float]) -> Select[Any]:
    """Jobs that ended before that time. They stay ended, so what belongs to them needs no second look."""
    return select(Job.id).where(Job.status.in_(TERMINAL), Job.finished_at < before)


def _locked(session: Session, key: InstrumentedAttribute[Any], ids: Sequence[Any]) -> Sequence[Any]:
    """Those of the ids that are there and that no other transaction has locked."""
    return session.scalars(select(key).where(key.in_(ids)).with_for_update(skip_locked=True)).all()


def _without_a_row(registry: Registry, keys: Sequence[str]) -> list[str]:
    """The keys that no row names and that no job may still come to name."""
    owners = {key: key.split("/")[1] for key in keys if key.split("/")[0] in _OF_JOBS}
    with registry.reading() as session:
        # The jobs first: one that has ended gets no more rows, so those read after it are all there will be.
        live = select(Job.id).where(Job.id.in_(set(owners.values())), Job.status.not_in(TERMINAL))
        busy = set(session.scalars(live))
        named: set[str] = set()
        for column in (
            File.object_key,
            UploadPart.object_key,
            Adapter.object_key,
            Checkpoint.object_key,
            Checkpoint.adapter_key,
        ):
            named.update(session.scalars(select(column).where(column.in_(keys))))
    return [key for key in keys if key not in named and owners.get(key) not in busy]


def _batches(keys: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(keys)
    while batch := list(islice(rest, _BATCH)):
        yield batch
