"""Tenants of an installation."""

from osora.options import Order
from osora.schemas import Tenant
from osora.sdk.call import Call, given, once, path
from osora.sdk.endpoint import Mode, Resource, iterated, method
from osora.sdk.paging import Listing


class Tenants(Resource[Mode]):
    """Whose files, jobs and adapters are whose: all calls take an `operator` key, and a tenant's id or name."""

    @method
    def create(self, name: str, *, idempotency_key: str | None = None) -> Call[Tenant]:
        """A new tenant, without any key."""
        return Call("POST", "/tenants", json={"name": name}, headers=once(idempotency_key))

    @iterated
    def list(
        self, limit: int | None = None, after: str | None = None, *, order: Order | None = None
    ) -> Listing[Tenant]:
        """Newest first: all of them, or at most `limit`."""
        return Listing("/tenants", limit, after, given(order=order))

    @method
    def get(self, tenant: str) -> Call[Tenant]:
        """A tenant."""
        return Call("GET", path("/tenants/{}", tenant))

    @method
    def suspend(self, tenant: str) -> Call[Tenant]:
        """Refuse its keys, end its streams, let its jobs wait; nothing is deleted."""
        return Call("POST", path("/tenants/{}/suspend", tenant))

    @method
    def resume(self, tenant: str) -> Call[Tenant]:
        """Let a suspended tenant in again; its jobs go on where they were."""
        return Call("POST", path("/tenants/{}/resume", tenant))
