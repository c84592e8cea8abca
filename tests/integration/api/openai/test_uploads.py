"""Files in parts, as OpenAI's client sends them."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import httpx
import openai as package
import pytest
from openai import OpenAI
from openai.types import Upload
from sqlalchemy import update

from registry import retention, uploads
from registry.context import Registry
from registry.upload_tables import Upload as UploadRow
from tests.integration.api.conftest import MAX_UPLOAD_BYTES, error_of

ROWS = b'{"prompt": "I was charged twice.", "completion": " billing"}\n' * 12
PART = 100  # bytes: no part but the last ends where a line does


def begin(openai: OpenAI, size: int = len(ROWS)) -> Upload:
    return openai.uploads.create(bytes=size, filename="tickets.jsonl", mime_type="text/jsonl", purpose="fine-tune")


def add(openai: OpenAI, upload: Upload, data: bytes) -> str:
    return openai.uploads.parts.create(upload.id, data=data).id


def stored(registry: Registry) -> list[str]:
    return sorted(found.key.split("/")[0] for found in registry.store.list(""))


def test_a_file_on_disk_and_one_in_memory(openai: OpenAI, registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "tickets.jsonl"
    path.write_bytes(ROWS)
    md5 = hashlib.md5(ROWS).hexdigest()
    on_disk = openai.uploads.upload_file_chunked(
        file=path, mime_type="text/jsonl", purpose="fine-tune", part_size=PART, md5=md5
    )
    in_memory = openai.uploads.upload_file_chunked(
        file=ROWS, filename=path.name, bytes=len(ROWS), mime_type="text/jsonl", purpose="fine-tune", part_size=PART
    )
    for upload in (on_disk, in_memory):
        assert (upload.object, upload.status, upload.bytes, upload.purpose) == (
            "upload",
            "completed",
            len(ROWS),
            "fine-tune",
        )
        assert upload.id.startswith("upload_")
        assert upload.expires_at == upload.created_at + 3600
        assert upload.file is not None
        assert upload.file == openai.files.retrieve(upload.file.id)
        assert (upload.file.filename, upload.file.status) == ("tickets.jsonl", "processed")
        assert openai.files.content(upload.file.id).read() == ROWS
        assert openai.fine_tuning.jobs.create(model="osora-tiny", training_file=upload.file.id).status == "queued"
    assert stored(registry) == ["files", "files"], "no part is left"


def test_the_order_of_parts_is_said_at_the_end(openai: OpenAI) -> None:
    upload = begin(openai)
    assert upload.status == "pending"
    second, first = add(openai, upload, ROWS[300:]), add(openai, upload, ROWS[:300])
    again = add(openai, upload, ROWS[300:])
    assert first.startswith("part_")
    file = openai.uploads.complete(upload.id, part_ids=[first, again]).file
    assert second != again
    assert file is not None
    assert openai.files.content(file.id).read() == ROWS


def test_what_is_wrong_is_said_and_the_upload_goes_on(openai: OpenAI) -> None:
    upload, other = begin(openai), begin(openai)
    first, second = add(openai, upload, ROWS[:300]), add(openai, upload, ROWS[300:])
    foreign = add(openai, other, ROWS[300:])
    wrong: list[tuple[list[str], str | None, str]] = [
        ([first], None, "size_mismatch"),
        ([first, first, second], None, "invalid_value"),
        ([first, foreign], None, "part_not_found"),
        ([first, "part_unknown"], None, "part_not_found"),
        ([], None, "invalid_value"),
        ([first, second], "0" * 32, "checksum_mismatch"),
        ([first, second], "not a checksum", "invalid_value"),
        ([second, first], None, "invalid_file"),
    ]
    for part_ids, md5, code in wrong:
        with pytest.raises(package.BadRequestError) as caught:
            openai.uploads.complete(upload.id, part_ids=part_ids, md5=package.omit if md5 is None else md5)
        assert caught.value.code == code, caught.value
    assert list(openai.files.list()) == []
    assert openai.uploads.complete(upload.id, part_ids=[first, second]).status == "completed"


def test_a_bad_line_is_the_same_error_as_of_a_file_in_one_piece(openai: OpenAI) -> None:
    bad = ROWS + b'{"prompt": "a"}\n'
    errors = []
    for send in (
        lambda: openai.files.create(file=("a.jsonl", bad), purpose="fine-tune"),
        lambda: openai.uploads.upload_file_chunked(
            file=bad, filename="a.jsonl", bytes=len(bad), mime_type="text/jsonl", purpose="fine-tune", part_size=PART
        ),
    ):
        with pytest.raises(package.BadRequestError) as caught:
            send()  # type: ignore[no-untyped-call]
        errors.append(caught.value.body)
    assert errors[0] == errors[1]
    assert "line 13" in str(errors[0])


def test_one_that_has_ended_takes_no_more(openai: OpenAI, registry: Registry) -> None:
    cancelled, completed, expired = (begin(openai) for _ in range(3))
    part_ids = [add(openai, upload, ROWS) for upload in (cancelled, completed, expired)]
    assert openai.uploads.cancel(cancelled.id).status == "cancelled"
    assert openai.uploads.cancel(cancelled.id).status == "cancelled", "twice is fine"
    assert stored(registry) == ["uploads", "uploads"]
    openai.uploads.complete(completed.id, part_ids=[part_ids[1]])
    with registry.transaction() as session:
        session.execute(update(UploadRow).where(UploadRow.id == expired.id).values(expires_at=1))
    for upload, status, part_id in zip(
        (cancelled, completed, expired), ("cancelled", "completed", "expired"), part_ids, strict=True
    ):
        found = openai.get(f"/uploads/{upload.id}", cast_to=Upload)
        assert (found.status, found.file is None) == (status, status != "completed")
        for call in (
            lambda upload=upload: add(openai, upload, ROWS),
            lambda upload=upload, part_id=part_id: openai.uploads.complete(upload.id, part_ids=[part_id]),
        ):
            with pytest.raises(package.ConflictError, match=f"is {status}") as caught:
                call()
            assert caught.value.code == "upload_not_pending"
            assert caught.value.response.headers["x-should-retry"] == "false"
    for upload in (completed, expired):
        with pytest.raises(package.ConflictError):
            openai.uploads.cancel(upload.id)


def test_limits(openai: OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(package.APIStatusError) as caught:
        begin(openai, MAX_UPLOAD_BYTES + 1)
    assert (caught.value.status_code, caught.value.code) == (413, "too_large")
    upload = begin(openai, 10)
    with pytest.raises(package.BadRequestError):
        add(openai, upload, b"")
    for data in (b"x" * 10, b"x" * 5, b"x" * 5):
        add(openai, upload, data)
    for full, data in ((upload, b"x"), (begin(openai, 10), b"x" * 11)):
        with pytest.raises(package.BadRequestError) as refused:
            add(openai, full, data)
        assert refused.value.code == "too_many_parts"
    monkeypatch.setattr(uploads, "PART_BYTES", 100)
    with pytest.raises(package.APIStatusError) as caught:
        add(openai, begin(openai), b"x" * 101)
    assert (caught.value.status_code, caught.value.code) == (413, "too_large")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_part_of_64_mib_and_one_byte_more(openai: OpenAI, client: httpx.Client) -> None:
    path = f"/uploads/{begin(openai).id}/parts"
    # The first has the right size for a part, and is too large for this upload.
    error = error_of(client.post(path, files={"data": b"x" * uploads.PART_BYTES}, timeout=60), 400)
    assert error["code"] == "too_many_parts"
    error_of(client.post(path, files={"data": b"x" * (uploads.PART_BYTES + 1)}, timeout=60), 413)


def test_another_tenants(openai: OpenAI, client_with: Callable[..., httpx.Client]) -> None:
    upload = begin(openai)
    part_id = add(openai, upload, ROWS)
    stranger, reader = client_with("train", tenant="other"), client_with("read")
    calls = [
        ("POST", f"/v1/uploads/{upload.id}/parts", {"files": {"data": ROWS}}),
        ("POST", f"/v1/uploads/{upload.id}/complete", {"json": {"part_ids": [part_id]}}),
        ("POST", f"/v1/uploads/{upload.id}/cancel", {}),
    ]
    for method, path, body in calls:
        assert error_of(stranger.request(method, path, **body), 404)["code"] == "upload_not_found"  # type: ignore[arg-type]
        error_of(reader.request(method, path, **body), 403)  # type: ignore[arg-type]
    mine = client_with("train", "read", tenant="other").post(
        "/uploads", json={"bytes": len(ROWS), "filename": "a", "mime_type": "b", "purpose": "fine-tune"}
    )
    body = {"part_ids": [part_id]}
    assert error_of(stranger.post(f"/uploads/{mine.json()['id']}/complete", json=body), 400)["code"] == "part_not_found"


def test_a_file_of_parts_expires(openai: OpenAI) -> None:
    upload = openai.uploads.create(
        bytes=len(ROWS),
        filename="C:\\data\\tickets.jsonl",
        mime_type="text/jsonl",
        purpose="fine-tune",
        expires_after={"anchor": "created_at", "seconds": 7200},
    )
    file = openai.uploads.complete(upload.id, part_ids=[add(openai, upload, ROWS)]).file
    assert file is not None
    assert (file.filename, file.expires_at) == ("tickets.jsonl", file.created_at + 7200)


def test_abandoned_ones_are_removed(openai: OpenAI, registry: Registry) -> None:
    old, young = begin(openai), begin(openai)
    part_id = add(openai, young, ROWS)
    for data in (ROWS[:300], ROWS[300:]):
        add(openai, old, data)
    with registry.transaction() as session:
        session.execute(update(UploadRow).where(UploadRow.id == old.id).values(expires_at=1))
    retention.maintain(registry)
    assert stored(registry) == ["uploads"]
    with pytest.raises(package.NotFoundError):
        openai.uploads.cancel(old.id)
    assert openai.uploads.complete(young.id, part_ids=[part_id]).status == "completed"
