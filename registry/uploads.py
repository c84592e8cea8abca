"""Files that come in parts: each part is an object of its own, until the upload is completed and becomes a file."""

import hashlib
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from registry import bases, files
from registry.context import Registry
from registry.db import now, now_seconds
from registry.disks import refuse_if_short
from registry.errors import Conflict, InvalidRequest, NotFound, OsoraError, TooLarge
from registry.ids import new_id
from registry.models import File
from registry.store import ObjectStore
from registry.tenants import Principal
from registry.upload_tables import Upload, UploadPart, UploadStatus

FOLDER = "uploads"
"""Where the parts are in the object store."""

PART_BYTES = 64 * 1024 * 1024
"""The largest part."""

MOST_PARTS = 10_000
"""Parts of one upload."""

LIFETIME_SECONDS = 3600
"""How long an upload may take, from its creation on."""

KEPT_DAYS = 1 / 24
"""How long after its expiry an upload is kept: one that was being completed then may go on for as long."""


@dataclass(frozen=True)
class UploadState:
    """An upload, and where it stands by the database's clock."""

    upload: Upload
    status: UploadStatus | Literal["expired"]
    file: File | None = None
    """What became of it, as long as that is there."""


def create(
    session: Session,
    principal: Principal,
    *,
    filename: str,
    purpose: str,
    bytes: int,
    file_expires_after: int | None,
    limit: int,
) -> UploadState:
    """Begins an upload of so many bytes; its file will last `file_expires_after` seconds, or for ever.

    Raises `InvalidRequest` for another purpose than training, `TooLarge` for more than `limit` bytes.
    """
    files.check_purpose(purpose)
    if bytes > limit:
        raise TooLarge(
            f"the file would have {bytes} bytes, and may have {limit}",
            param="bytes",
            next_action="split it, or raise OSORA_MAX_UPLOAD_BYTES",
        )
    created_at = session.scalars(select(now_seconds())).one()
    upload = Upload(
        id=new_id("upload_"),
        tenant_id=principal.tenant_id,
        filename=filename,
        purpose=purpose,
        bytes=bytes,
        file_expires_after=file_expires_after,
        created_at=created_at,
        expires_at=created_at + LIFETIME_SECONDS,
    )
    session.add(upload)
    session.flush()
    return UploadState(upload, "pending")


def get(session: Session, principal: Principal, upload_id: str) -> UploadState:
    """An upload of the tenant's. Raises `NotFound`."""
    state = _find(session, principal, upload_id)
    if state.upload.file_id is None:
        return state
    try:
        return UploadState(state.upload, state.status, files.get(session, principal, state.upload.file_id))
    except NotFound:
        return state


def add_part(
    registry: Registry,
    principal: Principal,
    upload_id: str,
    stream: files.Readable,
    record: Callable[[Session, UploadPart], object],
) -> UploadPart:
    """Stores a part; which place it has is said when the upload is completed. The stream is read once, in pieces.

    `record` is what belongs into the transaction that writes the row.

    Raises:
        NotFound: no such upload of this tenant's.
        Conflict: it takes no more parts.
        TooLarge: over `PART_BYTES`.
        StorageFull: there is too little free disk space.
        InvalidRequest: the part is empty, or there are more parts than the upload can need.
    """
    _check_pending(registry, principal, upload_id)
    refuse_if_short(registry.settings)
    with tempfile.NamedTemporaryFile(prefix="part-", dir=registry.scratch.folder) as spool:
        size = 0
        while chunk := stream.read(files.CHUNK_BYTES):
            size += len(chunk)
            if size > PART_BYTES:
                raise TooLarge(f"a part may have {PART_BYTES} bytes", param="data", next_action="send smaller parts")
            spool.write(chunk)
        if not size:
            raise InvalidRequest("the part is empty", param="data", next_action="send at least one byte")
        spool.flush()
        part_id = new_id("part_")
        part = UploadPart(id=part_id, upload_id=upload_id, object_key=f"{FOLDER}/{upload_id}/{part_id}", bytes=size)
        # The object first, as with files.
        registry.store.put(part.object_key, Path(spool.name))
    try:
        with registry.transaction() as session:
            upload = _require_pending(_find(session, principal, upload_id, lock=True))
            _check_needed(session, upload, part)
            session.add(part)
            session.flush()
            record(session, part)
    except OsoraError:  # it was not committed, then
        registry.store.delete(part.object_key)
        raise
    return part


def complete(
    registry: Registry,
    principal: Principal,
    upload_id: str,
    part_ids: Sequence[str],
    *,
    md5: str | None = None,
    offers: bases.Offers = MappingProxyType({}),
    record: Callable[[Session, UploadState], object],
) -> UploadState:
    """Makes a file of the parts, in that order, just as `files.ingest` makes one of a stream; they are gone then.

    `record` is what belongs into the transaction that writes the file's row.

    Raises:
        NotFound: no such upload of this tenant's.
        Conflict: it is not pending, or does not stay so until its parts have been read.
        InvalidRequest: a part is not one of its, or named twice; they are not as many bytes as were announced, or do
            not have this MD5 checksum.
        InvalidFile: as of `files.ingest`. The upload stays as it is.
    """
    with registry.reading() as session:
        upload = _require_pending(_find(session, principal, upload_id))
        keys = _object_keys(session, upload, part_ids)
    removed: list[str] = []
    completed: list[UploadState] = []

    def finish(session: Session, file: File) -> None:
        # One that has expired meanwhile was in time.
        state = _find(session, principal, upload_id, lock=True)
        if state.upload.status != "pending":
            raise _not_pending(state)
        state.upload.status = "completed"
        state.upload.file_id = file.id
        removed.extend(remove_parts(session, [upload_id]))
        session.flush()
        completed.append(UploadState(state.upload, "completed", file))
        record(session, completed[0])

    with closing(_Joined(registry.store, keys, md5)) as stream:
        try:
            files.ingest(
                registry,
                principal,
                stream,
                upload.filename,
                upload.purpose,
                offers,
                expires_after=upload.file_expires_after,
                record=finish,
            )
        except NotFound:  # a part: somebody else has completed or cancelled the upload
            _check_pending(registry, principal, upload_id)
            raise
    for key in removed:
        registry.store.delete(key)
    return completed[0]


def cancel(registry: Registry, principal: Principal, upload_id: str) -> UploadState:
    """Ends a pending upload and deletes its parts. Doing it twice is fine.

    Raises `NotFound`, and `Conflict` for one that was completed or has expired.
    """
    removed: Sequence[str] = ()
    with registry.transaction() as session:
        state = _find(session, principal, upload_id, lock=True)
        if state.status != "cancelled":
            _require_pending(state).status = "cancelled"
            removed = remove_parts(session, [upload_id])
            session.flush()
    for key in removed:
        registry.store.delete(key)
    return UploadState(state.upload, "cancelled")


def remove_parts(session: Session, upload_ids: Sequence[str]) -> list[str]:
    """Deletes the rows of uploads' parts and returns the keys of their objects, to be deleted once that has committed.

    The uploads' rows are locked.
    """
    statement = delete(UploadPart).where(UploadPart.upload_id.in_(upload_ids))
    return list(session.scalars(statement.returning(UploadPart.object_key)))


class _Joined:
    """Parts read one after the other. At their end, raises `InvalidRequest` if their MD5 checksum is another."""

    def __init__(self, store: ObjectStore, keys: Sequence[str], md5: str | None) -> None:
        self._pieces = self._read(store, keys)
        self._md5 = md5
        self._found = hashlib.md5(usedforsecurity=False)

    def read(self, size: int, /) -> bytes:
        """The next piece, as large as the store makes them."""
        piece = next(self._pieces, b"")
        if self._md5 is None:
            return piece
        self._found.update(piece)
        if not piece and self._found.hexdigest() != self._md5.lower():
            raise InvalidRequest(
                f"the parts have the MD5 checksum {self._found.hexdigest()}, not {self._md5}",
                param="md5",
                code="checksum_mismatch",
                next_action="look whether all parts are there and in order, or upload them again",
            )
        return piece

    def close(self) -> None:
        self._pieces.close()

    def _read(self, store: ObjectStore, keys: Sequence[str]) -> Generator[bytes]:
        for key in keys:
            yield from store.stream(key)


def _object_keys(session: Session, upload: Upload, part_ids: Sequence[str]) -> list[str]:
    """Of these parts, in this order."""
    rows = session.scalars(select(UploadPart).where(UploadPart.upload_id == upload.id))
    parts = {part.id: part for part in rows}
    for index, part_id in enumerate(part_ids):
        if part_id not in parts:
            raise InvalidRequest(
                f"{part_id!r} is not a part of {upload.id}",
                param=f"part_ids[{index}]",
                code="part_not_found",
                next_action="name the parts that were added to it",
            )
    if len(set(part_ids)) < len(part_ids):
        twice = next(part_id for index, part_id in enumerate(part_ids) if part_id in part_ids[:index])
        raise InvalidRequest(
            f"the part {twice} is named twice", param="part_ids", code="invalid_value", next_action="name it once"
        )
    named = [parts[part_id] for part_id in part_ids]
    size = sum(part.bytes for part in named)
    if size != upload.bytes:
        raise InvalidRequest(
            f"the parts have {size} bytes together, and the upload was announced with {upload.bytes}",
            param="part_ids",
            code="size_mismatch",
            next_action="name all parts, add the missing ones, or cancel the upload and begin another",
        )
    return [part.object_key for part in named]


def _check_needed(session: Session, upload: Upload, part: UploadPart) -> None:
    """A part may be sent again, after a failure; parts without end would only fill the disk."""
    stored = select(func.count(), func.coalesce(func.sum(UploadPart.bytes), 0))
    count, size = session.execute(stored.where(UploadPart.upload_id == upload.id)).one()
    if part.bytes <= upload.bytes and size + part.bytes <= 2 * upload.bytes and count < MOST_PARTS:
        return
    raise InvalidRequest(
        f"{upload.id} was announced with {upload.bytes} bytes and has {count} parts of {size}: "
        f"one more of {part.bytes} is over what it can need",
        param="data",
        code="too_many_parts",
        next_action="complete it, or cancel it and begin another with the right number of bytes",
    )


def _find(session: Session, principal: Principal, upload_id: str, *, lock: bool = False) -> UploadState:
    statement = select(Upload, Upload.expires_at <= now()).where(
        Upload.tenant_id == principal.tenant_id, Upload.id == upload_id
    )
    if lock:
        statement = statement.with_for_update().execution_options(populate_existing=True)
    found = session.execute(statement).one_or_none()
    if found is None:
        raise NotFound(
            f"no upload {upload_id!r}",
            param="upload_id",
            code="upload_not_found",
            next_action="create one with POST /uploads",
        )
    upload, is_past = found
    return UploadState(upload, "expired" if is_past and upload.status == "pending" else upload.status)


def _check_pending(registry: Registry, principal: Principal, upload_id: str) -> None:
    with registry.reading() as session:
        _require_pending(_find(session, principal, upload_id))


def _require_pending(state: UploadState) -> Upload:
    if state.status != "pending":
        raise _not_pending(state)
    return state.upload


def _not_pending(state: UploadState) -> Conflict:
    what = f"and is the file {state.upload.file_id}" if state.status == "completed" else "and its parts are gone"
    return Conflict(
        f"the upload {state.upload.id} is {state.status}, {what}",
        code="upload_not_pending",
        next_action="use the file" if state.status == "completed" else "create another upload",
    )
