"""Datasets in, result files out."""

from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from api.bases.known import OffersDep
from api.deps import ReaderDep, ReadSessionDep, RegistryDep, ServicesDep, TrainerDep
from api.downloads import attachment
from api.files.measuring import begin_measuring
from api.files.report import FileReport, report_of
from api.files.schemas import FileOut, FilesQuery, ReportQuery, UploadForm
from api.files.upload import base_name
from api.idempotency import OnceFormDep
from api.multipart import body_of, read_form
from api.routes import ThreadRoute
from api.schemas import Deleted, ListPage, errors
from registry import audit, files
from registry.models import File

router = APIRouter(prefix="/files", tags=["files"], route_class=ThreadRoute)

FileId = Annotated[str, Path(examples=["file-01k9v3t0w5qabcdefghjkmnpqrs"])]


@router.post(
    "",
    summary="Upload a training file",
    openapi_extra=body_of(UploadForm),
    responses=errors(400, 401, 403, 413, 429, 507),
)
async def upload_file(
    request: Request,
    services: ServicesDep,
    principal: TrainerDep,
    offers: OffersDep,
    background: BackgroundTasks,
    once: OnceFormDep,
) -> FileOut:
    """Stores a training file as it is after checking every row; an error names all that is wrong, line by line.

    Conversations are refused where no base on offer has a chat template. With `expires_after` the file is gone after so
    many seconds; a job that uses it then keeps what it needs.
    """
    example = "-F purpose=fine-tune -F file=@train.jsonl"
    async with (
        services.limits.upload(principal) as room,
        read_form(request, UploadForm, file="file", example=example, room=room) as sent,
    ):
        await once.begin(sent.digest)
        file = await run_in_threadpool(
            files.ingest,
            services.registry,
            principal,
            sent.form.file.file,
            base_name(sent.form.file.filename or ""),
            sent.form.purpose,
            offers,
            expires_after=sent.form.expires_after_seconds,
            record=lambda session, file: once.keep(session, FileOut.of(file)),
        )
    background.add_task(begin_measuring, services, file)
    return FileOut.of(file)


@router.get("", summary="List files", responses=errors(400, 401, 403, 404))
def list_files(
    session: ReadSessionDep, principal: ReaderDep, query: Annotated[FilesQuery, Query()]
) -> ListPage[FileOut]:
    """The tenant's files, newest first unless asked otherwise."""
    page = files.list(
        session, principal, purpose=query.purpose, after=query.after, limit=query.limit, order=query.order
    )
    return ListPage[FileOut].of([FileOut.of(file) for file in page.data], page.has_more)


@router.get("/{file_id}", summary="Get a file", responses=errors(401, 403, 404))
def get_file(file_id: FileId, session: ReadSessionDep, principal: ReaderDep) -> FileOut:
    """What is known of a file, without its bytes."""
    return FileOut.of(files.get(session, principal, file_id))


@router.get(
    "/{file_id}/content",
    summary="Download a file",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/octet-stream": {}, "text/csv": {}}}, **errors(401, 403, 404)},
)
def get_file_content(file_id: FileId, services: ServicesDep, principal: ReaderDep) -> StreamingResponse:
    """An uploaded file as it came, or a job's result file: its metrics by step, as CSV."""
    with services.registry.transaction() as session:
        file = files.get(session, principal, file_id)
        audit.record(session, principal, "file.downloaded", "file", file.id)
    pieces = services.registry.store.stream(file.object_key)
    media_type = "text/csv" if file.purpose == files.RESULTS_PURPOSE else "application/octet-stream"
    whole = attachment(pieces, filename=file.filename, bytes=file.bytes, media_type=media_type)
    return services.revocations.watch(principal).guard(whole)


@router.get(
    "/{file_id}/report",
    summary="Report on a training file",
    responses=errors(400, 401, 403, 404),
)
async def get_file_report(
    file_id: FileId, services: ServicesDep, principal: ReaderDep, query: Annotated[ReportQuery, Query()]
) -> FileReport:
    """What was converted, what may be wrong with the rows, and what they come to in the tokens of a base: rows over its
    limit, a histogram, and a few rows as they are trained on.

    Tokens are counted when they are first asked for. Of a large file that takes a while: until then the report says so.
    """

    def read() -> File:
        with services.registry.reading() as session:
            return files.get(session, principal, file_id)

    return await report_of(services, await run_in_threadpool(read), query.base)


@router.delete("/{file_id}", summary="Delete a file", responses=errors(401, 403, 404, 409, 507))
def delete_file(file_id: FileId, registry: RegistryDep, principal: TrainerDep) -> Deleted:
    """Deletes a file for good. Refused while a job that has not ended uses it."""
    files.delete(registry, principal, file_id)
    return Deleted(id=file_id, object="file")
