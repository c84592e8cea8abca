"""API keys. The scope `admin` is the operator's: it may make keys for any tenant."""

from typing import Annotated

from fastapi import APIRouter, Path

from api.deps import AdminDep, ReadSessionDep, SessionDep
from api.keys.schemas import CreateKey, KeyOut, NewKeyOut
from api.schemas import Deleted, ListPage, errors
from registry import tenants

router = APIRouter(prefix="/keys", tags=["keys"])

KeyId = Annotated[str, Path(examples=["key-01k9v2m4x7abcdefghjkmnpqrs"])]


@router.post("", summary="Create an API key", responses=errors(400, 401, 403))
def create_key(body: CreateKey, session: SessionDep, principal: AdminDep) -> NewKeyOut:
    """Makes a key. Its secret is in this answer and nowhere else: only a hash is stored."""
    tenant = body.tenant or principal.tenant_name
    key, plaintext = tenants.create_key(session, tenant, body.name, body.scopes)
    return NewKeyOut(**KeyOut.of(key, tenant).model_dump(), key=plaintext)


@router.get("", summary="List API keys", responses=errors(401, 403))
def list_keys(session: ReadSessionDep, principal: AdminDep) -> ListPage[KeyOut]:
    """The keys of your tenant, revoked ones too, newest first."""
    found = tenants.list_keys(session, principal)
    return ListPage[KeyOut].of([KeyOut.of(key, principal.tenant_name) for key in found], has_more=False)


@router.delete("/{key_id}", summary="Revoke an API key", responses=errors(401, 403, 404))
def revoke_key(
    key_id: KeyId,
    session: SessionDep,
    principal: AdminDep,
) -> Deleted:
    """Ends a key of your tenant at once. It stays in the list, as revoked."""
    return Deleted(id=tenants.revoke_key(session, principal, key_id).id, object="api_key")
