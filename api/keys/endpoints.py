"""API keys. An `admin` key manages those of its own tenant, an `operator` key those of every tenant."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from api.deps import AdminDep, ReadSessionDep, SessionDep
from api.idempotency import OnceDep
from api.json_body import JsonRoute
from api.keys.schemas import CreateKey, KeyOut, KeysQuery, NewKeyOut
from api.schemas import Deleted, ListPage, errors
from registry import tenants

router = APIRouter(prefix="/keys", tags=["keys"], route_class=JsonRoute)

KeyId = Annotated[str, Path(examples=["key-01k9v2m4x7abcdefghjkmnpqrs"])]


@router.post("", summary="Create an API key", responses=errors(400, 401, 403, 409))
def create_key(body: CreateKey, session: SessionDep, principal: AdminDep, once: OnceDep) -> NewKeyOut:
    """Makes a key. Its secret is in this answer and nowhere else: only a hash is stored.

    It takes the scope `operator` to make one for another tenant, or one with the scope `operator`.
    """
    key, plaintext = tenants.grant_key(session, principal, body.name, body.scopes, body.tenant)
    return once.keep(session, NewKeyOut.of_new(key, body.tenant or principal.tenant_name, plaintext), has_secret=True)


@router.get("", summary="List API keys", responses=errors(400, 401, 403))
def list_keys(session: ReadSessionDep, principal: AdminDep, query: Annotated[KeysQuery, Query()]) -> ListPage[KeyOut]:
    """Your tenant's keys, revoked ones too, newest first; an operator sees every tenant's."""
    found = tenants.list_keys(session, principal, query.tenant)
    return ListPage[KeyOut].of([KeyOut.of(key, tenant) for key, tenant in found], has_more=False)


@router.delete("/{key_id}", summary="Revoke an API key", responses=errors(401, 403, 404))
def revoke_key(key_id: KeyId, session: SessionDep, principal: AdminDep) -> Deleted:
    """Ends a key of your tenant at once, or any if you are an operator. It stays in the list, as revoked."""
    return Deleted(id=tenants.revoke_key(session, principal, key_id).id, object="api_key")
