"""For our own processes only."""

from fastapi import APIRouter, Depends
from fastapi.responses import StreamingResponse

from api.deps import RegistryDep, require_internal
from registry.object_keys import missing

router = APIRouter(prefix="/internal", include_in_schema=False, dependencies=[Depends(require_internal)])


@router.get("/objects/{key:path}", summary="Get an object")
def get_object(key: str, registry: RegistryDep) -> StreamingResponse:
    """An object's bytes: an inference server has no database, so a `db:` store reaches it through here."""
    size = registry.store.size(key)
    if size is None:
        raise missing(key)
    return StreamingResponse(
        registry.store.stream(key),
        media_type="application/octet-stream",
        headers={"content-length": str(size)},
    )
