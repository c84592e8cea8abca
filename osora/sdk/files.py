"""Datasets and result files."""

import os
from contextlib import suppress

import httpx

from osora.errors import OsoraError
from osora.options import Order
from osora.schemas import File, FileReport, Upload, UploadPart
from osora.sdk.attempts import not_osora
from osora.sdk.call import Call, Form, Sink, Steps, given, new_key, nothing, once, path
from osora.sdk.endpoint import Mode, Resource, iterated, method
from osora.sdk.paging import Listing
from osora.sdk.sources import FileSource, Progress, Source, opened, whole

# Sent again in case of need, and progress told, by so many bytes; the service takes parts of up to 64 MiB.
_PART_BYTES = 16 * 1024 * 1024
_DEFAULT_NAME = "data.jsonl"
_PAGE = 1000


class Files(Resource[Mode]):
    """Datasets and result files."""

    @method
    def upload(
        self,
        file: FileSource,
        purpose: str = "fine-tune",
        *,
        filename: str | None = None,
        expires_after: int | None = None,
        on_progress: Progress | None = None,
        idempotency_key: str | None = None,
    ) -> Steps[File]:
        """Upload a training file (a path, bytes, or a file opened in binary mode), in parts if it is large.

        It is JSON Lines, a JSON array, CSV or Parquet, plain or compressed (gzip, Zstandard), whatever it is called.
        It lasts so many seconds (an hour to 30 days), or until it is deleted. The service validates it; the error of
        an invalid one names line and field. `on_progress` is told of the bytes that have been sent, and of how many.
        """
        with opened(file, filename, _DEFAULT_NAME, on_progress) as source:
            if source.size <= _PART_BYTES:
                uploaded: File = yield _upload_whole(source, purpose, expires_after, idempotency_key)
                return uploaded
            return (yield from _upload_in_parts(source, purpose, expires_after, idempotency_key))

    @iterated
    def list(
        self,
        limit: int | None = None,
        after: str | None = None,
        *,
        purpose: str | None = None,
        order: Order | None = None,
    ) -> Listing[File]:
        """Newest first: all of them, or at most `limit`, after the one with this id."""
        return Listing("/files", limit, after, given(purpose=purpose, order=order), _PAGE)

    @method
    def get(self, file_id: str) -> Call[File]:
        """What is known of a file, without its bytes."""
        return Call("GET", path("/files/{}", file_id))

    @method
    def report(self, file_id: str, base: str | None = None) -> Call[FileReport]:
        """What a training file is warned of, and how long its rows are in tokens of a base (of all on offer)."""
        return Call("GET", path("/files/{}/report", file_id), params=given(base=base))

    @method
    def content(self, file_id: str) -> Call[bytes]:
        """A file's bytes: an uploaded dataset, or a CSV that a job names in `result_files`."""
        return Call("GET", path("/files/{}/content", file_id), parse=lambda response: response.content)

    @method
    def download(self, file_id: str, path: str | os.PathLike[str]) -> Steps[int]:
        """Write a file to `path`, whole or not at all; returns its bytes."""
        return (yield from saved(content_of(file_id), path))

    @method
    def delete(self, file_id: str) -> Call[None]:
        """Delete a file for good; refused while a job that has not ended uses it."""
        return Call("DELETE", path("/files/{}", file_id), parse=nothing)


class Uploads(Resource[Mode]):
    """Files that come in parts: what `files.upload` does by itself, for programs that have the parts in several
    places."""

    @method
    def create(
        self,
        filename: str,
        bytes: int,
        *,
        purpose: str = "fine-tune",
        mime_type: str = "text/jsonl",
        expires_after: int | None = None,
        idempotency_key: str | None = None,
    ) -> Call[Upload]:
        """Begin a file of so many bytes; it can be completed within an hour."""
        return _begin(filename, bytes, purpose, mime_type, expires_after, idempotency_key)

    @method
    def get(self, upload_id: str) -> Call[Upload]:
        """An upload, for an hour after it could be completed."""
        return Call("GET", path("/uploads/{}", upload_id))

    @method
    def add_part(self, upload_id: str, data: FileSource, *, idempotency_key: str | None = None) -> Steps[UploadPart]:
        """Send at most 64 MiB of the file. Parts may come in any order, and several at once."""
        with opened(data, None, "part", None) as source:
            part: UploadPart = yield _part(upload_id, source, 0, source.size, idempotency_key)
            return part

    @method
    def complete(
        self, upload_id: str, part_ids: list[str], *, md5: str | None = None, idempotency_key: str | None = None
    ) -> Call[Upload]:
        """Make a file of the parts, in this order. If a line is wrong, the upload stays as it is."""
        return _complete(upload_id, part_ids, md5, idempotency_key)

    @method
    def cancel(self, upload_id: str) -> Call[Upload]:
        """End an upload and delete its parts."""
        return Call("POST", path("/uploads/{}/cancel", upload_id))


def content_of(file_id: str) -> str:
    """Where a file's bytes are."""
    return path("/files/{}/content", file_id)


def saved(source: str, target: str | os.PathLike[str], params: dict[str, str] | None = None) -> Steps[int]:
    """Brings what is at a path of the service to a path here, whole or not at all; returns its bytes."""
    with whole(target) as out:

        def begin(response: httpx.Response) -> Sink:
            if response.headers.get("content-type", "").startswith("text/html"):  # somebody's page, where to log in
                raise not_osora(response)
            out.seek(0)
            out.truncate()
            return out.write

        yield Call("GET", source, parse=nothing, params=params, into=begin)
        return out.tell()


def _upload_whole(source: Source, purpose: str, expires_after: int | None, key: str | None) -> Call[File]:
    fields = {"purpose": purpose}
    if expires_after is not None:
        fields |= {"expires_after[anchor]": "created_at", "expires_after[seconds]": str(expires_after)}

    def form() -> Form:
        return Form(fields=fields, file=("file", source.name, source.part(0, source.size)))

    return Call("POST", "/files", form=form, headers=once(key))


def _upload_in_parts(source: Source, purpose: str, expires_after: int | None, key: str | None) -> Steps[File]:
    is_ours = key is None
    key = key or new_key()
    upload: Upload = yield _begin(source.name, source.size, purpose, "text/jsonl", expires_after, f"{key}-begin")
    try:
        parts = []
        for start in range(0, source.size, _PART_BYTES):
            part: UploadPart = yield _part(upload["id"], source, start, _PART_BYTES, f"{key}-{start}")
            parts.append(part["id"])
        completed: Upload = yield _complete(upload["id"], parts, None, f"{key}-complete")
    except Exception:
        if is_ours:  # who has a key of their own may call again, which goes on with the parts that are there
            with suppress(OsoraError):
                yield Call("POST", path("/uploads/{}/cancel", upload["id"]), retries=False)
        raise
    assert completed["file"] is not None
    return completed["file"]


def _begin(
    filename: str, size: int, purpose: str, mime_type: str, expires_after: int | None, key: str | None
) -> Call[Upload]:
    lasts = None if expires_after is None else {"anchor": "created_at", "seconds": expires_after}
    body = given(filename=filename, bytes=size, purpose=purpose, mime_type=mime_type, expires_after=lasts)
    return Call("POST", "/uploads", json=body, headers=once(key))


def _part(upload_id: str, source: Source, start: int, size: int, key: str | None) -> Call[UploadPart]:
    def form() -> Form:
        return Form(fields={}, file=("data", source.name, source.part(start, size)))

    return Call("POST", path("/uploads/{}/parts", upload_id), form=form, headers=once(key))


def _complete(upload_id: str, part_ids: list[str], md5: str | None, key: str | None) -> Call[Upload]:
    body = given(part_ids=part_ids, md5=md5)
    return Call("POST", path("/uploads/{}/complete", upload_id), json=body, headers=once(key))
