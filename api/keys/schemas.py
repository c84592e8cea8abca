"""API keys, as clients see them."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from api.schemas import NO_NUL, AtMost, Name, QueryModel, RequestModel
from registry.models import ApiKey
from registry.tenants import ALL_SCOPES, Scope


class CreateKey(RequestModel):
    """A new key."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "ticket-triage", "tenant": "acme", "scopes": ["read", "write"]}]}
    )

    name: Annotated[str, Field(min_length=1, max_length=200, description="What it is for."), NO_NUL]
    tenant: Annotated[
        Name | None,
        Field(description="Whose it is; created if need be. Another than your own takes the scope `operator`."),
    ] = None
    scopes: Annotated[
        tuple[Scope, ...],
        AtMost(len(ALL_SCOPES)),
        Field(
            min_length=1,
            strict=False,
            description="`read` and `write` the tenant's data; `admin`: that, and manage the tenant's keys; "
            "`operator`: all that, for every tenant of the installation.",
        ),
    ] = ("read", "write")


class KeysQuery(QueryModel):
    """Whose keys."""

    tenant: Annotated[
        Name | None, Field(description="Only this tenant's. Another than your own takes the scope `operator`.")
    ] = None


class KeyOut(BaseModel):
    """A key, without its secret."""

    id: str
    object: Literal["api_key"] = "api_key"
    name: str
    tenant: str
    tenant_id: str
    """What another tenant shares a model with yours by."""
    scopes: list[str]
    hint: str
    """The last characters of the secret, to recognise it by."""
    created_at: int
    revoked_at: int | None

    @classmethod
    def of(cls, key: ApiKey, tenant: str) -> Self:
        """The key's row as a client sees it."""
        return cls(
            id=key.id,
            name=key.name,
            tenant=tenant,
            tenant_id=key.tenant_id,
            scopes=key.scopes,
            hint=key.hint,
            created_at=key.created_at,
            revoked_at=key.revoked_at,
        )


class NewKeyOut(KeyOut):
    """A key with its secret, shown this once."""

    key: str

    @classmethod
    def of_new(cls, key: ApiKey, tenant: str, plaintext: str) -> Self:
        """The key's row as its maker sees it."""
        return cls(**KeyOut.of(key, tenant).model_dump(), key=plaintext)
