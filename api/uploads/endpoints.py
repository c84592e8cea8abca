"""Files that come in parts, for those that are large."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.concurrency import run_in_threadpool

from api.bases.known import OffersDep
from api.deps import ReaderDep, ReadSessionDep, RegistryDep, ServicesDep, SessionDep, TrainerDep
from api.idempotency import OnceDep, OnceFormDep
from api.json_body import JsonRoute
from api.multipart import body_of, read_form
from api.schemas import errors
from api.uploads.schemas import CompleteUpload, CreateUpload, PartForm, PartOut, UploadOut
from registry import uploads

router = APIRouter(prefix="/uploads", tags=["uploads"], route_class=JsonRoute)

UploadId = Annotated[str, Path(examples=["upload_01k9v3t0w5qabcdefghjkmnpqrs"])]


@router.post("", summary="Begin an upload in parts", responses=errors(400, 401, 403, 413, 429))
def create_upload(
    body: CreateUpload, session: SessionDep, registry: RegistryDep, principal: TrainerDep, once: OnceDep
) -> UploadOut:
    """Begins an upload. It can be completed within an hour."""
    state = uploads.create(
        session,
        principal,
        filename=body.filename,
        purpose=body.purpose,
        bytes=body.bytes,
        file_expires_after=body.expires_after.seconds if body.expires_after else None,
        limit=registry.settings.max_upload_bytes,
    )
    return once.keep(session, UploadOut.of(state))


@router.get("/{upload_id}", summary="Get an upload", responses=errors(401, 403, 404))
def get_upload(upload_id: UploadId, session: ReadSessionDep, principal: ReaderDep) -> UploadOut:
    """An upload, for an hour after it could be completed."""
    return UploadOut.of(uploads.get(session, principal, upload_id))


@router.post(
    "/{upload_id}/parts",
    summary="Add a part",
    openapi_extra=body_of(PartForm),
    responses=errors(400, 401, 403, 404, 409, 413, 429, 507),
)
async def add_part(
    upload_id: UploadId, request: Request, services: ServicesDep, principal: TrainerDep, once: OnceFormDep
) -> PartOut:
    """Stores at most 64 MiB of the file. Parts may come in any order, and several at once."""
    async with (
        services.limits.upload(principal) as room,
        read_form(request, PartForm, file="data", example="-F data=@part", room=room) as sent,
    ):
        await once.begin(sent.digest)
        part = await run_in_threadpool(
            uploads.add_part,
            services.registry,
            principal,
            upload_id,
            sent.form.data.file,
            lambda session, part: once.keep(session, PartOut.of(part)),
        )
    return PartOut.of(part)


@router.post(
    "/{upload_id}/complete", summary="Complete an upload", responses=errors(400, 401, 403, 404, 409, 413, 429, 507)
)
async def complete_upload(
    upload_id: UploadId,
    body: CompleteUpload,
    services: ServicesDep,
    principal: TrainerDep,
    offers: OffersDep,
    once: OnceDep,
) -> UploadOut:
    """Makes a file of the parts, in the order given, after checking every row as POST /files does.

    The parts must come to the bytes that the upload was begun with. If a row is wrong, the upload stays as it is.
    """
    async with services.limits.completion(principal):
        state = await run_in_threadpool(
            uploads.complete,
            services.registry,
            principal,
            upload_id,
            body.part_ids,
            md5=body.md5,
            offers=offers,
            record=lambda session, state: once.keep(session, UploadOut.of(state)),
        )
    return UploadOut.of(state)


@router.post("/{upload_id}/cancel", summary="Cancel an upload", responses=errors(401, 403, 404, 409))
def cancel_upload(upload_id: UploadId, registry: RegistryDep, principal: TrainerDep) -> UploadOut:
    """Ends an upload and deletes its parts. Doing it twice is fine."""
    return UploadOut.of(uploads.cancel(registry, principal, upload_id))
