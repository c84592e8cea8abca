"""API keys, as clients see them."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from api.schemas import RequestModel
from registry.models import ApiKey
from registry.tenants import Scope


class CreateKey(RequestModel):
    """A new key."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "ticket-triage", "tenant": "acme", "scopes": ["read", "write"]}]}
    )

    name: Annotated[str, Field(min_length=1, max_length=200, description="What it is for.")]
    tenant: Annotated[str | None, Field(description="Whose it is; created if need be. Default: your own.")] = None
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1, strict=False)] = ("read", "write")


class KeyOut(BaseModel):
    """A key, without its secret."""

    id: str
    object: Literal["api_key"] = "api_key"
    name: str
    tenant: str
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
            scopes=key.scopes,
            hint=key.hint,
            created_at=key.created_at,
            revoked_at=key.revoked_at,
        )


class NewKeyOut(KeyOut):
    """A key with its secret, shown this once."""

    key: str
