"""Datasets in, result files out."""

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from sqlalchemy import Select, or_, select
from sqlalchemy import delete as delete_rows
from sqlalchemy.orm import Session

from osora_data import Checked, check
from osora_data.report import Observer
from registry import audit, bases, overlaps
from registry.columns import check_storable
from registry.context import Registry
from registry.db import now, now_seconds
from registry.disks import refuse_if_short
from registry.errors import InvalidFile, InvalidRequest, NotFound, OsoraError, TooLarge
from registry.holds import in_use
from registry.ids import new_id
from registry.models import TERMINAL, File, Job
from registry.paging import Order, Page, fetch_page
from registry.scrubbing import scrub_files
from registry.tenants import Principal

TRAINING_PURPOSE = "fine-tune"
RESULTS_PURPOSE = "fine-tune-results"
CHUNK_BYTES = 1024 * 1024
MOST_SECONDS = 120.0
"""Of a core, for the check of one file. The largest takes some fifteen, if it is no attempt to keep a thread busy."""


class Readable(Protocol):
    """Bytes that are read once, in pieces."""

    def read(self, size: int, /) -> bytes:
        """The next piece, of about `size` bytes; an empty one at the end."""


def ingest(
    registry: Registry,
    principal: Principal,
    stream: Readable,
    filename: str,
    purpose: str,
    offers: bases.Offers = MappingProxyType({}),
    *,
    expires_after: int | None = None,
    record: Callable[[Session, File], object] | None = None,
) -> File:
    """Stores a training file as it is, once every row in it was checked; the stream is read once, in pieces.

    Args:
        expires_after: the seconds that it lasts; None for ever.
        record: what belongs into the transaction that writes the row.

    Raises:
        InvalidRequest: the purpose is not one that is uploaded, or the name cannot be stored.
        InvalidFile: rows are not training data, or none of the bases on offer could learn from them; nothing is stored.
        TooLarge: over `max_upload_bytes`; nothing is stored.
        StorageFull: there is too little free disk space.
    """
    check_purpose(purpose)
    check_storable(filename, param="file")
    refuse_if_short(registry.settings)
    limit = registry.settings.max_upload_bytes
    with tempfile.NamedTemporaryFile(prefix="upload-", dir=registry.scratch.folder) as spool:
        sha256, size = hashlib.sha256(), 0
        while chunk := stream.read(CHUNK_BYTES):
            size += len(chunk)
            if size > limit:
                raise TooLarge(
                    f"the file is over {limit} bytes",
                    param="file",
                    next_action="split it, or raise OSORA_MAX_UPLOAD_BYTES",
                )
            sha256.update(chunk)
            spool.write(chunk)
        spool.flush()
        observer = Observer()
        checked = check(spool, on_row=observer, max_bytes=limit, seconds=MOST_SECONDS)
        if checked.problems:
            raise InvalidFile.of(checked.problems, checked.problem_count)
        assert checked.format is not None  # a file without rows has a problem
        bases.check_upload(offers, checked.format)
        file = File(
            id=(file_id := new_id("file-")),
            tenant_id=principal.tenant_id,
            filename=filename,
            purpose=purpose,
            object_key=f"files/{principal.tenant_id}/{file_id}",
            bytes=size,
            sha256=sha256.hexdigest(),
            format=checked.format,
            rows=checked.rows,
            report=_report(checked, observer),
        )
        # The object first: a row never points at nothing. A crash in between leaves a harmless orphan.
        registry.store.put(file.object_key, Path(spool.name))
    # If this fails, its commit may have happened all the same: the object stays, and is an orphan if it has no row.
    try:
        with registry.transaction() as session:
            file.created_at = session.scalars(select(now_seconds())).one()
            file.expires_at = None if expires_after is None else file.created_at + expires_after
            session.add(file)
            session.flush()
            overlaps.keep(session, file.id, observer.sketch)
            if record is not None:
                record(session, file)
    except OsoraError:  # one of ours comes before the commit
        registry.store.delete(file.object_key)
        raise
    return file


def _report(checked: Checked, observer: Observer) -> dict[str, Any]:
    """What is kept of the check: the reader bounds its notes in number and length."""
    return {"container": checked.container, "notes": checked.notes, "warnings": observer.warnings()}


def check_purpose(purpose: str) -> None:
    """Raises `InvalidRequest` for what no file is uploaded for here."""
    if purpose != TRAINING_PURPOSE:
        raise InvalidRequest(
            f"{purpose!r} is not a purpose for uploads",
            param="purpose",
            next_action=f"use {TRAINING_PURPOSE!r}",
        )


def get(session: Session, principal: Principal, file_id: str, *, param: str = "file_id") -> File:
    """A file of the tenant's. Raises `NotFound`, naming the request field `param`."""
    file = session.scalars(_of(principal).where(File.id == file_id)).one_or_none()
    if file is None:
        raise _not_found(file_id, param)
    return file


def get_for_training(session: Session, principal: Principal, file_id: str, *, param: str) -> File:
    """A training file of the tenant's, held against deletion until the transaction ends."""
    file = session.scalars(_of(principal).where(File.id == file_id).with_for_update(read=True)).one_or_none()
    if file is None:
        raise _not_found(file_id, param)
    if file.purpose != TRAINING_PURPOSE:
        raise InvalidRequest(
            f"file {file_id!r} was uploaded for {file.purpose!r}, not for training",
            param=param,
            next_action=f"name a file uploaded with the purpose {TRAINING_PURPOSE!r}",
        )
    return file


def delete(registry: Registry, principal: Principal, file_id: str) -> None:
    """Deletes a file, row and bytes. Raises `NotFound`, and `Conflict` while a live job uses it."""
    with registry.transaction() as session:
        file = session.scalars(_of(principal).where(File.id == file_id).with_for_update()).one_or_none()
        if file is None:
            raise _not_found(file_id, "file_id")
        user = live_users(session, [file_id]).get(file_id)
        if user is not None:
            raise in_use(user, f"uses the file {file_id!r}", code="file_in_use")
        remove(session, principal, [file])
    registry.store.delete(file.object_key)


def remove(session: Session, principal: Principal | None, files: Sequence[File]) -> None:
    """Deletes the rows of locked files that no live job uses, and what other rows hold of them, but not their objects.

    `principal`: who does so; None for the service itself.
    """
    scrub_files(session, files)
    session.execute(delete_rows(File).where(File.id.in_([file.id for file in files])))
    for file in files:
        facts = {"owner_id": file.tenant_id, "bytes": file.bytes, "sha256": file.sha256}
        audit.record(session, principal, "file.deleted", "file", file.id, **facts)


def live_users(session: Session, file_ids: Sequence[str]) -> dict[str, Job]:
    """The files of these that a job needs which has not ended, each with such a job.

    Ask once their rows are locked: `get_for_training` then has either been here before, with its job, or waits.
    """
    live = select(Job).where(Job.status.not_in(TERMINAL))
    users = live.where(or_(Job.training_file_id.in_(file_ids), Job.validation_file_id.in_(file_ids)))
    return {
        file_id: job
        for job in session.scalars(users)
        for file_id in file_ids
        if file_id in (job.training_file_id, job.validation_file_id)
    }


def list(
    session: Session,
    principal: Principal,
    *,
    purpose: str | None = None,
    after: str | None = None,
    limit: int = 10_000,
    order: Order = "desc",
) -> Page[File]:
    """A page of the tenant's files. Raises `NotFound` when `after` is none of them."""
    statement = _of(principal)
    if purpose is not None:
        statement = statement.where(File.purpose == purpose)
    start = None if after is None else get(session, principal, after, param="after")
    position = None if start is None else (start.created_at, start.id)
    return fetch_page(session, statement, (File.created_at, File.id), after=position, limit=limit, order=order)


def _of(principal: Principal) -> Select[File]:
    # An expired file is gone for every request, whether retention has been there or not.
    is_valid = or_(File.expires_at.is_(None), File.expires_at > now())
    return select(File).where(File.tenant_id == principal.tenant_id, is_valid)


def _not_found(file_id: str, param: str) -> NotFound:
    return NotFound(
        f"no file {file_id!r}", param=param, code="file_not_found", next_action="list the files for their ids"
    )
