"""Of `osora.schemas`: keys, tenants, what they may take and have taken, and what was done."""

from typing import Any, Literal, TypedDict


class Key(TypedDict, total=False):
    id: str
    name: str
    tenant: str
    tenant_id: str
    scopes: list[str]
    hint: str
    created_at: int
    created_by: str | None  # the key that it was made with
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None  # to the minute
    server_secret: Literal["current", "fallback", "lost", "unknown"]  # what it is hashed with
    key: str  # in the answer to `create` only: the service keeps a hash


class Tenant(TypedDict, total=False):
    id: str
    name: str
    created_at: int
    suspended_at: int | None
    erasing_since: int | None


class AuditRecord(TypedDict):
    """Something that was done."""

    id: str
    created_at: int
    action: str
    tenant_id: str | None
    """Whose the target is; None: the installation's."""
    actor: dict[str, str | None]
    """`tenant_id` and `key_id`; both None where the service acted by a setting."""
    target: dict[str, str]
    """`kind` and `id`."""
    address: str | None
    request_id: str | None
    facts: dict[str, Any]


class Limits(TypedDict, total=False):
    owner: str
    """The id of the tenant, or of the key."""
    limits: dict[str, int | str]
    overrides: dict[str, int | str]
    used: dict[str, int]


class UsageRow(TypedDict, total=False):
    id: str
    day: str | None
    tenant: str | None
    key_id: str | None
    key_name: str | None
    base: str | None
    adapter_id: str | None
    kind: str | None
    requests: int
    prompt_tokens: int
    completion_tokens: int
    trained_tokens: int
    steps: int
    compute_seconds: float


class StoredBytes(TypedDict, total=False):
    files: int
    uploads: int
    adapters: int
    checkpoints: int
    total: int


class System(TypedDict, total=False):
    """The installation now."""

    inference: list[dict[str, Any]]
    """Of each server `number`, `answers` and `bases`: of each `base` what is `running` and `waiting`, its `rows`,
    `tokens_per_second`, and what is taken of its banks: `adapters` of `adapter_slots`, `lora_ranks` of
    `lora_capacity`."""
    workers: list[dict[str, Any]]
    """`id`, `live`, `bases`, `slots`, `jobs`, `tokens_per_second`, `started_at`, `seen_at`."""
    queue: list[dict[str, Any]]
    """By `base`, how many jobs are `validating_files`, `queued`, `running` and `paused`."""


class TenantDeletion(TypedDict):
    id: str
    deleted: bool
    cancelled_jobs: list[str]
