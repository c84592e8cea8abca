"""What was used, by day, key, model and kind."""

from itertools import chain
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from api.deps import ReaderDep, ReadSessionDep, RegistryDep
from api.routes import ThreadRoute
from api.schemas import ListPage, errors
from api.usage.schemas import StoredOut, UsageOut, UsageQuery, WhoseUsage
from api.usage.table import pieces
from registry import usage

router = APIRouter(prefix="/usage", tags=["usage"], route_class=ThreadRoute)

_CSV = "text/csv"
_EXAMPLE = (
    "day,tenant,key_id,key_name,base,adapter_id,kind,requests,prompt_tokens,completion_tokens,trained_tokens,steps,"
    "compute_seconds\r\n2026-11-27,,,,,,,12,340,96,0,0,0.0\r\n"
)


@router.get(
    "",
    summary="Get usage",
    response_model=ListPage[UsageOut],
    responses={200: {"content": {_CSV: {"example": _EXAMPLE}}}, **errors(400, 401, 403)},
)
def get_usage(
    registry: RegistryDep, principal: ReaderDep, request: Request, query: Annotated[UsageQuery, Query()]
) -> Response | ListPage[UsageOut]:
    """Your tenant's usage, the oldest day first; an operator's is that of every tenant.

    A generation is in it about a second after its end, and counts for what was computed, also if nobody waited for it.
    As CSV all rows come at once, without pages.
    """
    question = query.question()
    if query.format == "csv" or (query.format is None and _wants_csv(request)):
        rows = usage.every(registry, principal, question)
        # The first is asked for here so that a refusal still has its own status.
        begun = [first] if (first := next(rows, None)) is not None else []
        headers = {"content-disposition": 'attachment; filename="usage.csv"'}
        return StreamingResponse(pieces(chain(begun, rows)), media_type=_CSV, headers=headers)
    with registry.reading() as session:
        page = usage.report(session, principal, question, after=query.after, limit=query.limit)
    return ListPage[UsageOut].of([UsageOut.of(row) for row in page.data], page.has_more)


@router.get("/storage", summary="Get stored bytes", responses=errors(400, 401, 403, 404))
def get_storage(session: ReadSessionDep, principal: ReaderDep, query: Annotated[WhoseUsage, Query()]) -> StoredOut:
    """What your tenant's files, adapters and checkpoints take now; an operator may ask for another tenant's."""
    return StoredOut.of(usage.stored(session, usage.whose(session, principal, query.tenant)))


def _wants_csv(request: Request) -> bool:
    accepted = [kind.partition(";")[0].strip() for kind in request.headers.get("accept", "").split(",")]
    return _CSV in accepted and "application/json" not in accepted
