"""Names of models: aliases, and who else may call an adapter by its name."""

from collections.abc import Mapping, Sequence
from typing import Literal

from osora.options import Order
from osora.schemas import Alias, AliasVersion, Permission
from osora.sdk.call import Call, given, nothing, once, path
from osora.sdk.endpoint import Mode, Resource, iterated, method
from osora.sdk.paging import Items, Listing, items


class Aliases(Resource[Mode]):
    """Names of your own for models: adapters, checkpoints and bases."""

    @method
    def set(
        self,
        name: str,
        targets: str | Mapping[str, int],
        *,
        expected_version: int | None = None,
        idempotency_key: str | None = None,
    ) -> Call[Alias]:
        """Make an alias of a model, or of several with their weights, or move it there.

        `expected_version`: only if the alias is at this version (0: not there yet).
        """
        stands_for = {"target": targets} if isinstance(targets, str) else {"targets": dict(targets)}
        body = given(name=name, **stands_for, expected_version=expected_version)
        return Call("POST", "/aliases", json=body, headers=once(idempotency_key))

    @method
    def get(self, name: str) -> Call[Alias]:
        """What an alias stands for."""
        return Call("GET", path("/aliases/{}", name))

    @iterated
    def list(self, limit: int | None = None, after: str | None = None, *, order: Order | None = None) -> Listing[Alias]:
        """Newest first: all of them, or at most `limit`, after the one of this name."""
        return Listing("/aliases", limit, after, given(order=order), cursor="name")

    @method
    def history(self, name: str) -> Call[Items[AliasVersion]]:
        """The versions that are kept, newest first."""
        return Call("GET", path("/aliases/{}/history", name), parse=items)

    @method
    def rollback(
        self,
        name: str,
        version: int | None = None,
        *,
        expected_version: int | None = None,
        idempotency_key: str | None = None,
    ) -> Call[Alias]:
        """Bring back what it stood for before its last change, or in another version."""
        body = given(version=version, expected_version=expected_version)
        return Call("POST", path("/aliases/{}/rollback", name), json=body, headers=once(idempotency_key))

    @method
    def delete(self, name: str) -> Call[None]:
        """What it stands for stays."""
        return Call("DELETE", path("/aliases/{}", name), parse=nothing)


class Permissions(Resource[Mode]):
    """Who else may call an adapter or a checkpoint of yours by its name: nobody may download it. Takes an admin key."""

    @method
    def create(
        self, model: str, tenant_ids: Sequence[str], *, idempotency_key: str | None = None
    ) -> Call[Items[Permission]]:
        """Let other tenants call it; their ids are `tenant-…`."""
        body = {"project_ids": [*tenant_ids]}
        return Call("POST", _permissions(model), parse=items, json=body, headers=once(idempotency_key))

    @iterated
    def list(
        self,
        model: str,
        limit: int | None = None,
        after: str | None = None,
        *,
        tenant_id: str | None = None,
        order: Literal["ascending", "descending"] | None = None,
    ) -> Listing[Permission]:
        """Newest first: all of them, or at most `limit`."""
        return Listing(_permissions(model), limit, after, given(project_id=tenant_id, order=order))

    @method
    def delete(self, model: str, permission_id: str) -> Call[None]:
        """From now on that tenant finds no such model."""
        return Call("DELETE", f"{_permissions(model)}{path('/{}', permission_id)}", parse=nothing)


def _permissions(model: str) -> str:
    return path("/v1/fine_tuning/checkpoints/{}/permissions", model)
