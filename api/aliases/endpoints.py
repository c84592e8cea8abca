"""Aliases. `{name}` may contain slashes."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from api.aliases.schemas import AliasHistory, AliasOut, Rollback, SetAlias, VersionOut
from api.deps import ReaderDep, ReadSessionDep, RegistryDep, SessionDep, TrainerDep
from api.idempotency import OnceDep
from api.json_body import JsonRoute
from api.schemas import Deleted, ListPage, PageQuery, errors
from registry.added_bases import offered
from registry.names import aliases

router = APIRouter(prefix="/aliases", tags=["aliases"], route_class=JsonRoute)

AliasName = Annotated[str, Path(examples=["triage", "ft:gpt-4o-mini-2024-07-18:acme::abc"])]
_BEFORE = Rollback()


@router.post("", summary="Make or move an alias", responses=errors(400, 401, 403, 404, 409))
def set_alias(
    body: SetAlias, session: SessionDep, principal: TrainerDep, registry: RegistryDep, once: OnceDep
) -> AliasOut:
    """Lets a name stand for a model, or for several that share its requests by their weights.

    The next request by that name goes there. Requests of one user (`safety_identifier`, `user` or `prompt_cache_key`,
    in this order) stay at one of several models, and raising a weight moves no more of them than it must.
    What it stands for already is no change, and makes no version.
    """
    alias = aliases.put(
        session,
        principal,
        body.name,
        body.weights,
        bases=offered.paths(session, registry.settings),
        expected_version=body.expected_version,
    )
    return once.keep(session, AliasOut.of(alias))


@router.get("", summary="List aliases", responses=errors(400, 401, 403, 404))
def list_aliases(
    session: ReadSessionDep, principal: ReaderDep, query: Annotated[PageQuery, Query()]
) -> ListPage[AliasOut]:
    """The tenant's aliases, newest first unless asked otherwise. The next page is `after` the last one's name."""
    page = aliases.list(session, principal, **query.model_dump())
    return ListPage[AliasOut].of([AliasOut.of(alias) for alias in page.data], page.has_more)


@router.get("/{name:path}/history", summary="Get an alias's history", responses=errors(401, 403, 404))
def get_history(name: AliasName, session: ReadSessionDep, principal: ReaderDep) -> AliasHistory:
    """What it stood for, since when, and which key made it so: the newest 100 versions, newest first.

    That of a deleted alias is kept for 90 days.
    """
    return AliasHistory(data=[VersionOut.of(change) for change in aliases.history(session, principal, name)])


@router.post("/{name:path}/rollback", summary="Roll an alias back", responses=errors(400, 401, 403, 404, 409))
def roll_back(
    name: AliasName,
    session: SessionDep,
    principal: TrainerDep,
    registry: RegistryDep,
    once: OnceDep,
    body: Rollback = _BEFORE,
) -> AliasOut:
    """Lets an alias stand again for what it did before its last change, or in another version; a deleted one as well.

    That makes a new version, so a second roll-back takes the first one back. With an `Idempotency-Key` a request that
    is sent again is no second one.
    """
    alias = aliases.rollback(
        session,
        principal,
        name,
        bases=offered.paths(session, registry.settings),
        to=body.version,
        expected_version=body.expected_version,
    )
    return once.keep(session, AliasOut.of(alias))


@router.get("/{name:path}", summary="Get an alias", responses=errors(401, 403, 404))
def get_alias(name: AliasName, session: ReadSessionDep, principal: ReaderDep) -> AliasOut:
    """What an alias stands for."""
    return AliasOut.of(aliases.get(session, principal, name))


@router.delete("/{name:path}", summary="Delete an alias", responses=errors(401, 403, 404))
def delete_alias(name: AliasName, session: SessionDep, principal: TrainerDep) -> Deleted:
    """Calls by that name fail from now on; what it stood for stays. A roll-back brings it back."""
    aliases.remove(session, principal, name)
    return Deleted(id=name, object="alias")
