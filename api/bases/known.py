"""What the API knows of the bases on offer, for whichever route needs it."""

from typing import Annotated

from fastapi import Depends
from fastapi.concurrency import run_in_threadpool

from api.deps import PrincipalDep, ServicesDep
from api.services import Services
from registry import bases
from registry.added_bases import offered
from registry.bases import Offer


async def base_paths(services: Services) -> dict[str, str]:
    """The bases on offer, and what each is loaded from."""

    def read() -> dict[str, str]:
        with services.registry.reading() as session:
            return offered.paths(session, services.settings)

    return await run_in_threadpool(read)


async def get_offers(services: ServicesDep, principal: PrincipalDep) -> dict[str, Offer]:
    """The bases on offer, by name: for those who have a key."""
    loaded = await services.gateway.bases()
    return await run_in_threadpool(bases.offers, await base_paths(services), loaded)


OffersDep = Annotated[dict[str, Offer], Depends(get_offers)]
