"""API keys. An `admin` key manages those of its own tenant, an `operator` key those of every tenant."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from api.deps import AdminDep, ReaderDep, ReadSessionDep, ServicesDep, SessionDep
from api.idempotency import OnceDep
from api.json_body import JsonRoute
from api.keys.schemas import CreateKey, KeyOut, KeysQuery, NewKeyOut
from api.schemas import Deleted, ListPage, errors
from registry import server_secrets, tenants

router = APIRouter(prefix="/keys", tags=["keys"], route_class=JsonRoute)

KeyId = Annotated[str, Path(examples=["key-01k9v2m4x7abcdefghjkmnpqrs"])]


@router.post("", summary="Create an API key", responses=errors(400, 401, 403, 404, 409))
def create_key(body: CreateKey, session: SessionDep, principal: AdminDep, once: OnceDep) -> NewKeyOut:
    """Makes a key. Its secret is in this answer and nowhere else: only a hash is stored.

    It takes the scope `operator` to make one for another tenant, which must be there, or one with the scope `operator`.
    No key lasts longer than the one that it is made with.
    """
    key, plaintext = tenants.grant_key(session, principal, body.name, body.scopes, body.tenant, body.expires_in)
    secrets = server_secrets.of_session(session)
    new = NewKeyOut.of_new(key, tenants.name_of(session, key.tenant_id), secrets, plaintext)
    return once.keep(session, new, has_secret=True)


@router.get("", summary="List API keys", responses=errors(400, 401, 403, 404))
def list_keys(session: ReadSessionDep, principal: AdminDep, query: Annotated[KeysQuery, Query()]) -> ListPage[KeyOut]:
    """Your tenant's keys, revoked ones too, newest first; an operator sees every tenant's."""
    whose = query.model_dump()
    page, names = tenants.list_keys(session, principal, whose.pop("tenant"), **whose)
    secrets = server_secrets.of_session(session)
    return ListPage[KeyOut].of([KeyOut.of(key, names[key.tenant_id], secrets) for key in page.data], page.has_more)


@router.get("/current", summary="Get the key that asks", responses=errors(401, 403))
def get_current_key(session: ReadSessionDep, principal: ReaderDep) -> KeyOut:
    """Who the key that this is asked with says you are: its tenant, its scopes, its end."""
    key = tenants.current_key(session, principal)
    return KeyOut.of(key, principal.tenant_name, server_secrets.of_session(session))


@router.delete("/{key_id}", summary="Revoke an API key", responses=errors(401, 403, 404))
def revoke_key(key_id: KeyId, services: ServicesDep, principal: AdminDep) -> Deleted:
    """Ends a key of your tenant, or any if you are an operator, and within a second the streams that it has open. It
    stays in the list, as revoked."""
    with services.registry.transaction() as session:
        key = tenants.revoke_key(session, principal, key_id)
    services.authenticator.forget()
    return Deleted(id=key.id, object="api_key")
