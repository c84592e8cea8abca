"""What tenants and keys may take."""

from collections.abc import Mapping

from osora.schemas import Limits as LimitsObject
from osora.sdk.call import Call, path
from osora.sdk.endpoint import Mode, Resource, method


class Limits(Resource[Mode]):
    """Limits of tenants, which an `operator` key sets, and of keys, which their tenant's `admin` key sets.

    Values are numbers, "unlimited", or for `priority` a word; GET /docs lists the names.
    """

    @method
    def of_tenant(self, tenant: str) -> Call[LimitsObject]:
        """What a tenant may take, and takes: one's own, for an operator any."""
        return Call("GET", path("/tenants/{}/limits", tenant))

    @method
    def set_for_tenant(self, tenant: str, values: Mapping[str, int | str]) -> Call[LimitsObject]:
        """These, in place of all that were set before; what is left out is as the installation has it."""
        return Call("PUT", path("/tenants/{}/limits", tenant), json=values)

    @method
    def of_key(self, key_id: str) -> Call[LimitsObject]:
        """What a key may take, beside what its tenant may."""
        return Call("GET", path("/keys/{}/limits", key_id))

    @method
    def set_for_key(self, key_id: str, values: Mapping[str, int | str]) -> Call[LimitsObject]:
        """These, in place of all that the key had; what is left out is limited by its tenant's limits alone."""
        return Call("PUT", path("/keys/{}/limits", key_id), json=values)

    @method
    def reset_for_tenant(self, tenant: str) -> Call[LimitsObject]:
        """Leave a tenant the installation's limits."""
        return Call("DELETE", path("/tenants/{}/limits", tenant))

    @method
    def reset_for_key(self, key_id: str) -> Call[LimitsObject]:
        """Leave a key its tenant's limits alone."""
        return Call("DELETE", path("/keys/{}/limits", key_id))
