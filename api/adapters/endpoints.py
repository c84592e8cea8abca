"""Adapters, trained here or brought. `{adapter}` is an id or a name; a name may contain slashes, if its base's does."""

from functools import partial
from typing import Annotated

from anyio import CancelScope
from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse
from sqlalchemy.orm import Session

from api.adapters.inspection import inspected
from api.adapters.schemas import AdapterOut, AdaptersQuery, DownloadQuery, ImportedOut, ImportForm
from api.bases.known import base_paths
from api.deps import ReaderDep, ReadSessionDep, RegistryDep, ServicesDep, TrainerDep
from api.downloads import attachment
from api.generate.proxy import pass_on
from api.idempotency import OnceFormDep
from api.multipart import body_of, read_form
from api.routes import ThreadRoute
from api.schemas import Deleted, ListPage, errors
from registry import adapter_imports as imports
from registry import adapters, audit
from registry.context import Registry
from registry.errors import InvalidRequest
from registry.expiry import expiries
from registry.models import Adapter
from registry.references import AdapterRef, Target, delete, refer
from registry.tenants import Principal

router = APIRouter(prefix="/adapters", tags=["adapters"], route_class=ThreadRoute)

IdOrName = Annotated[
    str,
    Path(examples=["adp-01k9v4c7rqsabcdefghjkmnpqrs", "ft:osora-tiny:default:ticket-triage:abcdefghjkmnpqrs"]),
]


@router.get("", summary="List adapters", responses=errors(400, 401, 403, 404))
def list_adapters(
    session: ReadSessionDep, principal: ReaderDep, registry: RegistryDep, query: Annotated[AdaptersQuery, Query()]
) -> ListPage[AdapterOut]:
    """The tenant's adapters, newest first unless asked otherwise."""
    page = adapters.list(session, principal, **query.model_dump())
    refs = [AdapterRef.of(adapter) for adapter in page.data]
    ends = expiries(session, registry.settings, refs)
    return ListPage[AdapterOut].of([AdapterOut.of(ref, ends.get(ref.id)) for ref in refs], page.has_more)


@router.post(
    "",
    summary="Import an adapter",
    openapi_extra=body_of(ImportForm),
    responses=errors(400, 401, 403, 404, 409, 413, 429, 503, 507),
)
async def import_adapter(
    request: Request, services: ServicesDep, principal: TrainerDep, once: OnceFormDep
) -> ImportedOut:
    """Takes an OSoRA adapter of a base here, or a plain LoRA of it, as PEFT saves them: the folder as a ZIP.

    A LoRA is served as it is, at once. It does not say which weights it was trained on: its shapes have to fit, and if
    it names another base, `warnings` says so.
    """
    registry = services.registry
    async with (
        services.limits.upload(principal) as room,
        read_form(request, ImportForm, file="file", example="-F file=@adapter.zip", room=room) as sent,
    ):
        await once.begin(sent.digest)
        base = imports.base_of(list(await base_paths(services)), sent.form.base)
        draft = await run_in_threadpool(imports.store, registry, principal, base, sent.form.file.file)
    try:
        facts = await inspected(services, request, principal, draft)
    except BaseException:
        with CancelScope(shield=True):
            await run_in_threadpool(imports.discard, registry, draft)
        raise

    def record(session: Session, adapter: Adapter) -> ImportedOut:
        ref = AdapterRef.of(adapter)
        expires_at = expiries(session, registry.settings, [ref]).get(ref.id)
        return once.keep(session, ImportedOut.imported(ref, expires_at, facts.warnings))

    return await run_in_threadpool(imports.publish, registry, principal, draft, facts, sent.form.suffix, record)


@router.get(
    "/{adapter:path}/download",
    summary="Download an adapter",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"application/zip": {}}},
        304: {"description": "The client has this version."},
        **errors(400, 401, 403, 404, 429, 503, 507),
    },
)
async def download_adapter(
    adapter: IdOrName,
    request: Request,
    services: ServicesDep,
    principal: ReaderDep,
    query: Annotated[DownloadQuery, Query()],
    if_none_match: Annotated[str, Header()] = "",
) -> Response:
    """A ZIP with `adapter_config.json` and `adapter_model.safetensors`, or of a whole model.

    A job's checkpoint (`ftckpt_…` or `ft:…:ckpt-step-<n>`) can be had in the same forms.

    As it was trained, or came, its ETag is its SHA-256; the other forms are made anew each time, by an inference
    server. Without a format it is what it is.
    """
    ref = await run_in_threadpool(_refer, services.registry, principal, adapter)
    if query.format == "osora" and ref.type == "lora":
        raise InvalidRequest(
            f"{adapter!r} is a plain LoRA, which no OSoRA adapter equals",
            param="format",
            code="format_not_available",
            next_action="download it with format=lora, as it came, or with format=merged or gguf",
        )
    headers = {"etag": f'"{ref.sha256}"'}
    is_made_anew = query.format not in (None, ref.type)
    if ref.sha256 in if_none_match and not is_made_anew:
        return Response(status_code=304, headers=headers)
    await run_in_threadpool(_record_download, services.registry, principal, ref, query.format or ref.type)
    if is_made_anew:
        payload = {**Target(ref.base, ref).payload(), "tenant": principal.tenant_id, "format": query.format}
        ask = partial(services.gateway.ask, "/export", payload, ref.id, request.state.request_id)
        return await pass_on(request, ask, services.revocations.watch(principal))
    pieces = await run_in_threadpool(services.registry.store.stream, ref.object_key)
    name = f"{ref.id}.zip"
    whole = attachment(pieces, filename=name, bytes=ref.bytes, media_type="application/zip", headers=headers)
    return services.revocations.watch(principal).guard(whole)


@router.get("/{adapter:path}", summary="Get an adapter", responses=errors(401, 403, 404))
def get_adapter(adapter: IdOrName, session: ReadSessionDep, principal: ReaderDep, registry: RegistryDep) -> AdapterOut:
    """What is known of an adapter or of a job's checkpoint, by id, name or alias."""
    ref = refer(session, principal, adapter)
    return AdapterOut.of(ref, expiries(session, registry.settings, [ref]).get(ref.id))


@router.delete("/{adapter:path}", summary="Delete an adapter", responses=errors(401, 403, 404, 409))
def delete_adapter(adapter: IdOrName, services: ServicesDep, principal: TrainerDep) -> Deleted:
    """Deletes an adapter, or a checkpoint of a job that has ended, for good; calls of it fail from now on.

    Not while a live job begins with it or an alias names it, and not by an alias. The checkpoints of an adapter's job
    are not deleted with it.
    """
    deleted = delete(services.registry, principal, adapter)
    services.forgetting.soon()
    return Deleted(id=deleted, object="adapter")


def _refer(registry: Registry, principal: Principal, id_or_name: str) -> AdapterRef:
    with registry.reading() as session:
        return refer(session, principal, id_or_name)


def _record_download(registry: Registry, principal: Principal, ref: AdapterRef, format: str) -> None:
    kind: audit.TargetKind = "checkpoint" if ref.is_checkpoint else "adapter"
    with registry.transaction() as session:
        audit.record(session, principal, "adapter.downloaded", kind, ref.id, format=format)
