"""API keys."""

from collections.abc import Sequence

from osora.schemas import Key
from osora.sdk.call import Call, given, nothing, once, path
from osora.sdk.endpoint import Mode, Resource, method
from osora.sdk.paging import Items, items


class Keys(Resource[Mode]):
    """API keys: an `admin` key's calls are about its own tenant's, an `operator` key's about every tenant's."""

    @method
    def create(
        self,
        name: str,
        *,
        tenant: str | None = None,
        scopes: Sequence[str] | None = None,
        idempotency_key: str | None = None,
    ) -> Call[Key]:
        """A new key. Its secret is in the answer's `key`, this once.

        `scopes`: of read, write, admin and operator; default the first two.
        """
        body = given(name=name, tenant=tenant, scopes=list(scopes) if scopes else None)
        return Call("POST", "/keys", json=body, headers=once(idempotency_key))

    @method
    def list(self, tenant: str | None = None) -> Call[Items[Key]]:
        """Newest first, revoked ones too; with `tenant`, that one's only."""
        return Call("GET", "/keys", parse=items, params=given(tenant=tenant))

    @method
    def revoke(self, key_id: str) -> Call[None]:
        """End a key at once. It stays in the list, as revoked."""
        return Call("DELETE", path("/keys/{}", key_id), parse=nothing)
