"""Uploads in parts, where two do something to one at the same time."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, update

from registry import files, retention, uploads
from registry.context import Registry
from registry.errors import Conflict, Unavailable
from registry.models import File
from registry.tenants import Principal
from registry.upload_tables import Upload, UploadPart
from registry.uploads import UploadState
from tests.support.threads import in_parallel

ROWS = b'{"prompt": "a", "completion": "b"}\n' * 50


def record_nothing(*given: object) -> None:
    pass


@pytest.fixture
def upload_id(registry: Registry, principal: Principal) -> str:
    with registry.transaction() as session:
        begun = uploads.create(
            session,
            principal,
            filename="a.jsonl",
            purpose="fine-tune",
            bytes=len(ROWS),
            file_expires_after=None,
            limit=10**6,
        )
    return begun.upload.id


def add(registry: Registry, principal: Principal, upload_id: str, data: bytes = ROWS) -> str:
    return uploads.add_part(registry, principal, upload_id, io.BytesIO(data), record_nothing).id


def complete(registry: Registry, principal: Principal, upload_id: str, *part_ids: str) -> UploadState:
    return uploads.complete(registry, principal, upload_id, part_ids, record=record_nothing)


def stored(registry: Registry) -> list[str]:
    return sorted(found.key.split("/")[0] for found in registry.store.list(""))


def before_the_row(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """`action` comes when a file's rows have been checked and its row is still to be written."""
    ingest = files.ingest

    def late(*given: Any, record: Callable[..., object], **asked: Any) -> File:
        actions = [action]

        def read_then_act(size: int, /) -> bytes:
            piece: bytes = given[2].read(size)
            if not piece and actions:
                actions.pop()()
            return piece

        class Stream:
            read = staticmethod(read_then_act)

        return ingest(*given[:2], Stream(), *given[3:], record=record, **asked)

    monkeypatch.setattr(files, "ingest", late)


def test_two_that_complete_it_make_one_file(registry: Registry, principal: Principal, upload_id: str) -> None:
    part_id = add(registry, principal, upload_id)
    completed: list[UploadState] = []
    refused: list[Conflict] = []

    def work(index: int) -> None:
        try:
            completed.append(complete(registry, principal, upload_id, part_id))
        except Conflict as error:
            refused.append(error)

    in_parallel(3, work)
    assert (len(completed), len(refused)) == (1, 2)
    with registry.reading() as session:
        assert [file.id for file in session.scalars(select(File))] == [completed[0].upload.file_id]
    assert stored(registry) == ["files"]


def test_one_that_is_cancelled_while_it_is_completed(
    registry: Registry, principal: Principal, upload_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    part_id = add(registry, principal, upload_id)
    before_the_row(monkeypatch, lambda: uploads.cancel(registry, principal, upload_id))
    with pytest.raises(Conflict, match="is cancelled"):
        complete(registry, principal, upload_id, part_id)
    assert stored(registry) == []


def test_one_that_expires_while_it_is_completed_was_in_time(
    registry: Registry, principal: Principal, upload_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    part_id = add(registry, principal, upload_id)

    def expire() -> None:
        with registry.transaction() as session:
            session.execute(update(Upload).values(expires_at=Upload.expires_at - uploads.LIFETIME_SECONDS))
        assert retention.expire(registry) == 0

    before_the_row(monkeypatch, expire)
    assert complete(registry, principal, upload_id, part_id).status == "completed"
    with pytest.raises(Conflict, match="is completed, and is the file file-"):
        add(registry, principal, upload_id)


def test_a_part_that_comes_too_late_leaves_nothing(registry: Registry, principal: Principal, upload_id: str) -> None:
    uploads.cancel(registry, principal, upload_id)
    with pytest.raises(Conflict, match="is cancelled"):
        add(registry, principal, upload_id)
    assert stored(registry) == []


def test_what_a_retry_has_overtaken_leaves_nothing(registry: Registry, principal: Principal, upload_id: str) -> None:
    def superseded(*given: object) -> None:
        raise Unavailable("a retry was faster")

    part_id = add(registry, principal, upload_id)
    with pytest.raises(Unavailable):
        uploads.add_part(registry, principal, upload_id, io.BytesIO(ROWS), superseded)
    with pytest.raises(Unavailable):
        uploads.complete(registry, principal, upload_id, [part_id], record=superseded)
    assert stored(registry) == ["uploads"]
    with registry.reading() as session:
        assert session.scalars(select(UploadPart.id)).all() == [part_id]
        assert uploads.get(session, principal, upload_id).status == "pending"
        assert session.scalars(select(File)).all() == []
