"""The base models on offer, and their bases. `{base}` is a name, which may contain slashes, or the hash of a basis."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse

from api.bases.known import OffersDep
from api.bases.schemas import BaseList, BaseOut
from api.deps import ReaderDep, ServicesDep
from api.downloads import resumable
from api.schemas import errors
from api.services import Services
from registry import audit
from registry.bases import Offer
from registry.context import Registry
from registry.errors import NotFound, Unavailable
from registry.tenants import Principal

router = APIRouter(prefix="/bases", tags=["bases"])

NameOrHash = Annotated[
    str,
    Path(examples=["osora-tiny", "e3b98a4da31a127d2f0d4c1ad6f1b6dd5c0de5f1d5b1d6a4bb54a1a6f0c2e9d7"]),
]


@router.get("", summary="List bases", responses=errors(401, 403))
async def list_bases(services: ServicesDep, principal: ReaderDep, offers: OffersDep) -> BaseList:
    """What can be fine-tuned and called here. `loaded` says whether an inference server has it in memory."""
    held = {base["name"]: base for base in await services.gateway.bases()}
    names = {**offers, **held}
    return BaseList(
        data=[BaseOut.of(name, offers.get(name, Offer()), held.get(name), services.settings) for name in names]
    )


@router.get(
    "/{base:path}/basis",
    summary="Download a basis",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"application/octet-stream": {}}},
        206: {"description": "The part from a byte on, `Range: bytes=N-`."},
        304: {"description": "The client has it."},
        **errors(401, 403, 404, 503),
    },
)
async def download_basis(
    base: NameOrHash,
    services: ServicesDep,
    principal: ReaderDep,
    range: Annotated[str, Header()] = "",
    if_range: Annotated[str, Header()] = "",
    if_none_match: Annotated[str, Header()] = "",
) -> Response:
    """The stored basis of a base, a safetensors file: with it, adapters of this service load anywhere.

    By the base's name, or by the basis's own hash, which is its ETag. A download that was cut goes on with
    `Range: bytes=N-`; other ranges are answered with all of it.
    """
    basis = await _basis(services, base)
    store, key = services.registry.store, basis["object_key"]
    size = await run_in_threadpool(store.size, key)
    if size is None:
        raise Unavailable(
            f"the basis of {base!r} is not in the object store",
            code="basis_not_stored",
            next_action="start a worker: it stores the basis when it has loaded the base",
        )
    answer = await run_in_threadpool(
        resumable,
        lambda start: store.stream(key, start),
        filename=f"{basis['fingerprint']}.safetensors",
        bytes=size,
        etag=f'"{basis["fingerprint"]}"',
        range=range,
        if_range=if_range,
        if_none_match=if_none_match,
    )
    if answer.status_code != 304:
        await run_in_threadpool(_record_download, services.registry, principal, basis["fingerprint"])
    return answer


async def _basis(services: Services, name_or_hash: str) -> dict[str, Any]:
    """What an inference server says of a basis. Raises `NotFound`, and `Unavailable` if none has loaded its base."""
    for base in await services.gateway.bases():
        if name_or_hash in (base["name"], base["basis"]["fingerprint"]):
            found: dict[str, Any] = base["basis"]
            return found
    if name_or_hash in services.settings.base_paths:
        raise Unavailable(
            f"no inference server has loaded the base {name_or_hash!r}",
            code="base_not_loaded",
            next_action="try again in a moment; GET /ready says what is down",
        )
    raise NotFound(
        f"there is no base {name_or_hash!r}, and no basis of this hash is in use",
        code="base_not_found",
        next_action="list the bases for their names",
    )


def _record_download(registry: Registry, principal: Principal, fingerprint: str) -> None:
    with registry.transaction() as session:
        audit.record(session, principal, "basis.downloaded", "base", fingerprint)
