"""API keys."""

from collections.abc import Sequence

from osora.options import Order
from osora.schemas import Key
from osora.sdk.call import Call, given, nothing, once, path
from osora.sdk.endpoint import Mode, Resource, iterated, method
from osora.sdk.paging import Listing


class Keys(Resource[Mode]):
    """API keys: an `admin` key's calls are about its own tenant's, an `operator` key's about every tenant's."""

    @method
    def create(
        self,
        name: str,
        *,
        tenant: str | None = None,
        scopes: Sequence[str] | None = None,
        expires_in: int | None = None,
        idempotency_key: str | None = None,
    ) -> Call[Key]:
        """A new key. Its secret is in the answer's `key`, this once.

        `scopes`: of read, train, generate, admin and operator; default the first three. `expires_in`: seconds until it
        ends; default never, or with the key that it is made with.
        """
        body = given(name=name, tenant=tenant, scopes=list(scopes) if scopes else None, expires_in=expires_in)
        return Call("POST", "/keys", json=body, headers=once(idempotency_key))

    @iterated
    def list(
        self,
        limit: int | None = None,
        after: str | None = None,
        *,
        tenant: str | None = None,
        order: Order | None = None,
    ) -> Listing[Key]:
        """Newest first, revoked ones too; with `tenant`, that one's only: all of them, or at most `limit`."""
        return Listing("/keys", limit, after, given(tenant=tenant, order=order))

    @method
    def current(self) -> Call[Key]:
        """The key that this client uses, without its secret: its tenant, its scopes, its end. Takes `read`."""
        return Call("GET", "/keys/current")

    @method
    def revoke(self, key_id: str) -> Call[None]:
        """End a key, and what it has open, within a second. It stays in the list, as revoked."""
        return Call("DELETE", path("/keys/{}", key_id), parse=nothing)
