"""The base models on offer."""

from fastapi import APIRouter

from api.bases.schemas import BaseList, BaseOut
from api.deps import ReaderDep, ServicesDep
from api.schemas import errors

router = APIRouter(prefix="/bases", tags=["bases"])


@router.get("", summary="List bases", responses=errors(401, 403))
async def list_bases(services: ServicesDep, principal: ReaderDep) -> BaseList:
    """What can be fine-tuned and called here. `loaded` says whether an inference server has it in memory."""
    held = {base["name"]: base for base in await services.gateway.bases()}
    names = {**services.settings.base_paths, **held}
    said = ({"name": name, **held.get(name, {}), "loaded": name in held} for name in names)
    return BaseList(data=[BaseOut.model_validate(base) for base in said])
