"""What the API knows of the bases on offer, for whichever route needs it."""

from typing import Annotated

from fastapi import Depends
from fastapi.concurrency import run_in_threadpool

from api.deps import PrincipalDep, ServicesDep
from registry import bases
from registry.bases import Offer


async def get_offers(services: ServicesDep, principal: PrincipalDep) -> dict[str, Offer]:
    """The configured bases, by name: for those who have a key."""
    loaded = await services.gateway.bases()
    return await run_in_threadpool(bases.offers, services.settings, loaded)


OffersDep = Annotated[dict[str, Offer], Depends(get_offers)]
