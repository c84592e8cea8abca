"""The base models on offer, and their bases. `{base}` is a name, which may contain slashes, or the hash of a basis."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse

from api.bases.known import OffersDep, base_paths
from api.bases.schemas import AddBase, BaseList, BaseOut, BaseRemoval, RemoveBaseQuery
from api.deps import OperatorDep, ReaderDep, ServicesDep, SessionDep
from api.downloads import resumable
from api.idempotency import OnceDep
from api.json_body import JsonRoute
from api.schemas import errors
from api.services import Services
from registry import audit
from registry.added_bases import adding
from registry.added_bases.tables import AddedBase
from registry.bases import Offer
from registry.context import Registry
from registry.errors import NotFound, Unavailable
from registry.tenants import Principal

router = APIRouter(prefix="/bases", tags=["bases"], route_class=JsonRoute)

NameOrHash = Annotated[
    str,
    Path(examples=["osora-tiny", "e3b98a4da31a127d2f0d4c1ad6f1b6dd5c0de5f1d5b1d6a4bb54a1a6f0c2e9d7"]),
]


@router.get("", summary="List bases", responses=errors(401, 403))
async def list_bases(services: ServicesDep, principal: ReaderDep, offers: OffersDep) -> BaseList:
    """What can be fine-tuned and called here, and what is being made ready for it.

    `loaded` says whether an inference server has it in memory. Why a base cannot be used is told to operators alone.
    """
    held = {base["name"]: base for base in await services.gateway.bases()}
    to_operator = principal.has("operator")
    added = {row.name: row for row in await run_in_threadpool(_added, services.registry)}
    configured = [
        BaseOut.of(name, offers.get(name, Offer()), held.get(name), to_operator=to_operator)
        for name in {**offers, **held}
        if name not in added
    ]
    return BaseList(data=[*configured, *(_shown(services, row, held, principal) for row in added.values())])


@router.post("", summary="Add a base", responses=errors(400, 401, 403, 409))
def add_base(
    body: AddBase, session: SessionDep, services: ServicesDep, principal: OperatorDep, once: OnceDep
) -> BaseOut:
    """Adds a base to the running service. A worker fetches or converts it, checks it and computes its basis; `state`
    says how far that is. What trains and what is answered goes on meanwhile.

    Its files stay where they are; of a package or a `.gguf` file, the service makes a copy of its own. One that has
    failed is tried anew.
    """
    row = adding.add(session, principal, services.settings, body.name, body.source)
    return once.keep(session, BaseOut.of_added(row, to_operator=True))


@router.delete("/{base}", summary="Remove a base", responses=errors(400, 401, 403, 404, 409))
async def remove_base(
    base: Annotated[str, Path(examples=["smollm2-135m"])],
    services: ServicesDep,
    principal: OperatorDep,
    query: Annotated[RemoveBaseQuery, Query()],
) -> BaseRemoval:
    """Takes a base that was added off the service; what is being answered ends as it would.

    Refused while a job needs it that has not ended, and unless `leave_adapters` where adapters, checkpoints or aliases
    hang on it: the message counts them. No file of yours is deleted, only what the service has made of one.
    """

    def remove() -> BaseRemoval:
        with services.registry.transaction() as session:
            hanging = adding.remove(session, principal, services.settings, base, leave_adapters=query.leave_adapters)
            return BaseRemoval.of(base, hanging)

    removal = await run_in_threadpool(remove)
    services.bases.soon()
    return removal


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
        found: dict[str, Any] = base["basis"]
        if name_or_hash in (base["name"], found["fingerprint"]):
            return found
        if (key := found.get("beginnings", {}).get(name_or_hash)) is not None:
            return {**found, "fingerprint": name_or_hash, "object_key": key}
    if name_or_hash in await base_paths(services):
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


def _added(registry: Registry) -> Sequence[AddedBase]:
    with registry.reading() as session:
        return adding.everything(session)


def _shown(services: Services, row: AddedBase, held: Mapping[str, Any], principal: Principal) -> BaseOut:
    problem = services.bases.problem(row.name)
    return BaseOut.of_added(row, held.get(row.name), problem, to_operator=principal.has("operator"))
