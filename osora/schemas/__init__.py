"""The service's JSON objects, as types. The objects are plain dictionaries, exactly as the service sent them.

`total=False` everywhere: a newer service may add keys and an older one may lack some.
"""

from typing import Any, Literal, Required, TypedDict

from osora.schemas.accounts import AuditRecord as AuditRecord
from osora.schemas.accounts import Key as Key
from osora.schemas.accounts import Limits as Limits
from osora.schemas.accounts import StoredBytes as StoredBytes
from osora.schemas.accounts import System as System
from osora.schemas.accounts import Tenant as Tenant
from osora.schemas.accounts import TenantDeletion as TenantDeletion
from osora.schemas.accounts import UsageRow as UsageRow
from osora.schemas.bases import Base as Base
from osora.schemas.bases import BasePreset as BasePreset
from osora.schemas.bases import BaseRemoval as BaseRemoval
from osora.schemas.bases import Point as Point
from osora.schemas.bases import SizedPoint as SizedPoint

JobStatus = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
ENDED: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})


AdapterFormat = Literal["osora", "lora", "merged", "gguf"]


class FunctionCall(TypedDict):
    name: str
    arguments: str
    """JSON text."""


class ToolCall(TypedDict):
    id: str
    type: Literal["function"]
    function: FunctionCall


class Message(TypedDict, total=False):
    role: Required[Literal["system", "user", "assistant", "tool"]]
    content: str | None
    tool_calls: list[ToolCall]  # of the assistant
    tool_call_id: str  # of a tool's result


class File(TypedDict, total=False):
    id: str
    filename: str
    bytes: int
    created_at: int
    expires_at: int | None
    purpose: str
    status: str
    osora: dict[str, Any]
    """Of a dataset: `format` ("chat", "completion", "preference" or "text"), `rows`, `sha256`."""


class Problem(TypedDict, total=False):
    """What is wrong at one place of a file."""

    line: int | None
    field: str | None
    value: str | None  # the offending value, cut
    problem: str
    next_action: str


class FileWarning(TypedDict, total=False):
    code: str
    count: int
    message: str
    next_action: str
    lines: list[int]  # the first few


class FileReport(TypedDict, total=False):
    """What a valid file is warned of, and how long its rows are for a base."""

    file_id: str
    container: str
    format: str
    rows: int
    bytes: int
    notes: list[Any]
    warnings: list[FileWarning]
    tokens: dict[str, dict[str, Any]]
    """By base: `limit`, `rows`, `rows_over`, `over`, `tokens`, `trained_tokens`, `histogram`, `samples`; or
    `unavailable`, which says why there is none of it."""


class Upload(TypedDict, total=False):
    """A file that comes in parts; `file` is there once it is completed."""

    id: str
    bytes: int
    created_at: int
    expires_at: int  # when it can no longer be completed
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: File | None


class UploadPart(TypedDict, total=False):
    id: str
    created_at: int
    upload_id: str


class JobError(TypedDict, total=False):
    code: str
    message: str
    param: str | None
    fault: Literal["user", "platform", "unknown"]
    line: int
    next_action: str | None


class Attempt(TypedDict, total=False):
    """One worker's try at a job."""

    number: int
    worker_id: str
    first_step: int
    last_step: int
    compute_seconds: float
    started_at: int
    finished_at: int | None
    outcome: Literal["succeeded", "failed", "cancelled", "paused", "released", "lost"] | None
    reason: str | None
    error: JobError | None


class JobDetails(TypedDict, total=False):
    """Osora's own part of a job, beside the OpenAI fields."""

    step: int | None
    total_steps: int | None
    adapter_id: str | None
    started_at: int | None
    requested: Literal["cancel", "pause"] | None  # asked for, and not yet come about
    queue_position: int | None
    settings: dict[str, Any]
    points: list[Point] | None  # settled when it was accepted
    resolved: dict[str, Any] | None  # what it trains with, once decided
    train_loss: float | None  # at the newest checkpoint, and the next
    valid_loss: float | None
    compute_seconds: float
    attempts: list[Attempt]
    estimated_start: int | None  # this and the next: not in lists
    waiting_for: str | None


class Job(TypedDict, total=False):
    id: str
    status: JobStatus
    model: str
    created_at: int
    finished_at: int | None
    fine_tuned_model: str | None
    training_file: str
    validation_file: str | None
    result_files: list[str]
    user_provided_suffix: str | None
    method: dict[str, Any]
    hyperparameters: dict[str, Any]
    trained_tokens: int | None
    estimated_finish: int | None
    seed: int
    metadata: dict[str, str] | None
    error: JobError | None
    osora: JobDetails


class Probe(TypedDict, total=False):
    """What some real steps gave."""

    steps: int
    train_loss: list[float]
    seconds: float
    tokens_per_second: float


class DryRun(TypedDict, total=False):
    """What a job would be."""

    model: str
    method: dict[str, Any]
    hyperparameters: dict[str, Any]
    osora: dict[str, Any]
    rows: dict[str, int]
    """`training`, `validation`, `dropped`, `truncated`."""
    tokens: dict[str, int]
    """`training`, `trained`, `validation`."""
    steps: int
    queue_position: int | None
    estimated_start: int | None
    estimated_finish: int | None
    estimated_seconds: float | None
    points: list[SizedPoint]
    adapter_bytes: int | None
    warnings: list[Any]
    probe: Probe | None


class Event(TypedDict, total=False):
    id: str
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any]


class Checkpoint(TypedDict, total=False):
    id: str
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str
    step_number: int
    metrics: dict[str, float]


class Adapter(TypedDict, total=False):
    id: str
    name: str
    base: str
    bytes: int
    rank: int
    mix: int  # size of its matrix C; 0: it has none
    parameters: int
    created_at: int
    expires_at: int | None  # when retention deletes it, if it does
    type: Literal["osora", "lora"]
    job_id: str | None  # None: it was brought from elsewhere
    step: int | None  # of its job: the one whose state it is
    sha256: str


class ImportedAdapter(Adapter, total=False):
    """One that was brought from elsewhere."""

    warnings: list[str]  # what may be other than it seems


class Alias(TypedDict, total=False):
    name: str
    targets: dict[str, int]  # names of models with their weights
    version: int
    created_at: int
    updated_at: int


class AliasVersion(TypedDict, total=False):
    """What an alias has stood for since a change, and the key that made it."""

    version: int
    targets: dict[str, int]  # empty: it was deleted
    restored: int | None  # the version that a roll-back brought back
    created_at: int
    key_id: str
    key_name: str


class Permission(TypedDict, total=False):
    """That another tenant may call an adapter or a checkpoint."""

    id: str
    created_at: int
    project_id: str  # the tenant's id


class WebhookEndpoint(TypedDict, total=False):
    id: str
    name: str
    url: str
    event_types: list[str]
    created_at: int
    updated_at: int
    signing_secret_hint: str
    signing_secret: str  # in the answers to `create` and `rotate_secret` only
    osora: dict[str, Any]
    """`enabled`, `disabled_at`, `disabled_because`, `failing_since`, `old_secret_expires_at`."""


class WebhookTest(TypedDict, total=False):
    """What an endpoint answered to a sample."""

    webhook_endpoint_id: str
    event_type: str
    status_code: int
    osora: dict[str, Any]
    """`seconds`, and `error`: why a delivery with this answer counts as failed."""


class WebhookEvent(TypedDict, total=False):
    """What a webhook tells."""

    id: str
    created_at: int
    type: str
    data: dict[str, Any]


class WebhookDelivery(TypedDict, total=False):
    """An event on its way to an endpoint, with each attempt at it."""

    id: str  # the header `webhook-id`
    created_at: int
    event_id: str
    event_type: str
    data: dict[str, Any]
    status: Literal["pending", "delivered", "failed"]
    next_attempt_at: int | None
    attempts: list[dict[str, Any]]


class Readiness(TypedDict, total=False):
    ready: bool
    checks: dict[str, dict[str, Any]]


class Usage(TypedDict, total=False):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Likelihood(TypedDict, total=False):
    id: int
    token: str
    bytes: list[int]  # the token itself: it may be a part of a character
    logprob: float | None
    top_logprobs: list[dict[str, Any]]


class Choice(TypedDict, total=False):
    index: int
    text: str
    tool_calls: list[ToolCall] | None
    finish_reason: Literal["stop", "length", "tool_calls"]
    stop: str | None
    logprobs: list[Likelihood] | None


class Generation(TypedDict, total=False):
    id: str
    base: str
    adapter_id: str | None
    text: str
    finish_reason: Literal["stop", "length", "tool_calls"]
    choices: list[Choice]
    usage: Usage
    timing: dict[str, float]
    receipt: dict[str, Any]
