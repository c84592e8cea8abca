"""Trained adapters. `{adapter}` is an id or a name; a name may contain slashes, if its base's does."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query
from fastapi.responses import Response, StreamingResponse

from api.adapters.schemas import AdapterOut, AdaptersQuery, DownloadQuery
from api.deps import ReaderDep, ReadSessionDep, RegistryDep, WriterDep
from api.downloads import attachment
from api.schemas import Deleted, ListPage, errors
from registry import adapters

router = APIRouter(prefix="/adapters", tags=["adapters"])

IdOrName = Annotated[
    str,
    Path(examples=["adp-01k9v4c7rqsabcdefghjkmnpqrs", "ft:osora-tiny:default:ticket-triage:abcdefghjkmnpqrs"]),
]


@router.get("", summary="List adapters", responses=errors(400, 401, 403, 404))
def list_adapters(
    session: ReadSessionDep, principal: ReaderDep, query: Annotated[AdaptersQuery, Query()]
) -> ListPage[AdapterOut]:
    """The tenant's adapters, newest first unless asked otherwise."""
    page = adapters.list(session, principal, **query.model_dump())
    return ListPage[AdapterOut].of([AdapterOut.of(adapter) for adapter in page.data], page.has_more)


@router.get(
    "/{adapter:path}/download",
    summary="Download an adapter",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"application/zip": {}}},
        304: {"description": "The client has this version."},
        **errors(400, 401, 403, 404),
    },
)
def download_adapter(
    adapter: IdOrName,
    registry: RegistryDep,
    principal: ReaderDep,
    query: Annotated[DownloadQuery, Query()],
    if_none_match: Annotated[str, Header()] = "",
) -> Response:
    """A ZIP of a PEFT directory: `adapter_config.json`, `adapter_model.safetensors`. ETag: its SHA-256."""
    with registry.reading() as session:
        found = adapters.get(session, principal, adapter)
    headers = {"etag": f'"{found.sha256}"'}
    if found.sha256 in if_none_match:
        return Response(status_code=304, headers=headers)
    pieces = registry.store.stream(found.object_key)
    return attachment(
        pieces, filename=f"{found.id}.zip", bytes=found.bytes, media_type="application/zip", headers=headers
    )


@router.get("/{adapter:path}", summary="Get an adapter", responses=errors(401, 403, 404))
def get_adapter(adapter: IdOrName, session: ReadSessionDep, principal: ReaderDep) -> AdapterOut:
    """What is known of an adapter, by id or name."""
    return AdapterOut.of(adapters.get(session, principal, adapter))


@router.delete("/{adapter:path}", summary="Delete an adapter", responses=errors(401, 403, 404))
def delete_adapter(adapter: IdOrName, registry: RegistryDep, principal: WriterDep) -> Deleted:
    """Deletes an adapter for good; calls of it fail from now on."""
    return Deleted(id=adapters.delete(registry, principal, adapter).id, object="adapter")
