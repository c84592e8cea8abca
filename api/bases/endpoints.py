"""The base models on offer."""

from fastapi import APIRouter

from api.bases.known import OffersDep
from api.bases.schemas import BaseList, BaseOut
from api.deps import ReaderDep, ServicesDep
from api.schemas import errors
from registry.bases import Offer

router = APIRouter(prefix="/bases", tags=["bases"])


@router.get("", summary="List bases", responses=errors(401, 403))
async def list_bases(services: ServicesDep, principal: ReaderDep, offers: OffersDep) -> BaseList:
    """What can be fine-tuned and called here. `loaded` says whether an inference server has it in memory."""
    held = {base["name"]: base for base in await services.gateway.bases()}
    return BaseList(data=[BaseOut.of(name, offers.get(name, Offer()), held.get(name)) for name in {**offers, **held}])
