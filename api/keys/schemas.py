"""API keys, as clients see them."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from api.schemas import NO_NUL, AtMost, Name, PageQuery, RequestModel
from registry.models import ApiKey
from registry.server_secrets import SecretState, ServerSecrets
from registry.tenants import ALL_SCOPES, DEFAULT_SCOPES, Scope

_LONGEST_SECONDS = 10 * 366 * 24 * 3600


class CreateKey(RequestModel):
    """A new key."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "ticket-triage", "tenant": "acme", "scopes": ["read", "generate"]}]}
    )

    name: Annotated[str, Field(min_length=1, max_length=200, description="What it is for."), NO_NUL]
    tenant: Annotated[
        Name | None,
        Field(description="Whose it is. Another than your own takes the scope `operator`."),
    ] = None
    scopes: Annotated[
        tuple[Scope, ...],
        AtMost(len(ALL_SCOPES)),
        Field(
            min_length=1,
            strict=False,
            description="`read`: list and download; `train`: upload, train, delete, set aliases and webhooks; "
            "`generate`: text from models; `admin`: all that, and the tenant's keys; `operator`: all that, "
            "and the installation's tenants and their keys.",
        ),
    ] = DEFAULT_SCOPES
    expires_in: Annotated[
        int | None,
        Field(
            ge=1,
            le=_LONGEST_SECONDS,
            description="Seconds until it ends; without, when the key ends that it is made with, if ever.",
            examples=[30 * 24 * 3600],
        ),
    ] = None


class KeysQuery(PageQuery):
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
    created_by: str | None
    """Id of the key that it was made with."""
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None
    """To the minute."""
    server_secret: SecretState
    """The server secret that it is hashed with. A key of a lost one does not work; unknown is that of a key from before
    there was a record of it, until it is used."""

    @classmethod
    def of(cls, key: ApiKey, tenant: str, secrets: ServerSecrets) -> Self:
        """The key's row as a client sees it."""
        return cls(
            id=key.id,
            name=key.name,
            tenant=tenant,
            tenant_id=key.tenant_id,
            scopes=key.scopes,
            hint=key.hint,
            created_at=key.created_at,
            created_by=key.created_by,
            expires_at=key.expires_at,
            revoked_at=key.revoked_at,
            last_used_at=key.last_used_at,
            server_secret=secrets.state_of(key.secret_id),
        )


class NewKeyOut(KeyOut):
    """A key with its secret, shown this once."""

    key: str

    @classmethod
    def of_new(cls, key: ApiKey, tenant: str, secrets: ServerSecrets, plaintext: str) -> Self:
        """The key's row as its maker sees it."""
        return cls(**KeyOut.of(key, tenant, secrets).model_dump(), key=plaintext)
