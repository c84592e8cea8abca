"""The tables. Times are unix seconds of the database's clock; whole ones are what clients see."""

from typing import Any, Literal, get_args

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    UniqueConstraint,
    false,
)
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from registry.columns import PlainText
from registry.db import now, now_seconds

JobStatus = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
Method = Literal["supervised", "dpo"]
JobSignal = Literal["cancel", "pause"]
JobPriority = Literal["low", "normal", "high"]
AttemptOutcome = Literal["succeeded", "failed", "cancelled", "paused", "released", "lost"]
EventLevel = Literal["info", "warn", "error"]
EventType = Literal["message", "metrics"]
AdapterType = Literal["osora", "lora"]
FileFormat = Literal["chat", "completion", "preference", "text"]

TERMINAL: frozenset[JobStatus] = frozenset({"succeeded", "failed", "cancelled"})

# SQLite numbers rows by itself only for a column of the type INTEGER.
_Serial = BigInteger().with_variant(Integer, "sqlite")
_Json = JSON(none_as_null=True)


class Base(DeclarativeBase):
    """Every table's ancestor; constraint names are fixed so that later migrations can refer to them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    # Times computed by the database come back with the INSERT or UPDATE, so that rows stay readable
    # after their session has closed.
    __mapper_args__ = {"eager_defaults": True}  # noqa: RUF012  (SQLAlchemy's own declaration)

    type_annotation_map = {  # noqa: RUF012
        str: PlainText(),
        int: BigInteger(),
        float: Double(),
        dict[str, Any]: _Json,
        list[str]: _Json,
        list[dict[str, Any]]: _Json,
    }


def one_of(column: str, words: Any) -> CheckConstraint:
    """That a column holds one of the words of a `Literal`; NULL passes where the column may be that."""
    listed = ", ".join(f"'{word}'" for word in get_args(words))
    return CheckConstraint(f"{column} IN ({listed})", name=column)


class Tenant(Base):
    """Whoever owns files, jobs and adapters."""

    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(PlainText(40), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[int] = mapped_column(default=now_seconds())
    suspended_at: Mapped[int | None]
    """Since when its keys are refused and its jobs wait: see `registry.suspension`."""
    erasing_since: Mapped[int | None]
    """Since when it is being deleted, and when another may go on with that: see `registry.erasure`."""
    erasure_lease: Mapped[float | None]


class ApiKey(Base):
    """A bearer key, of which only the HMAC is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(PlainText(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    name: Mapped[str]
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    hint: Mapped[str]
    """The last characters of the key, to recognise it by."""
    scopes: Mapped[list[str]]
    created_at: Mapped[int] = mapped_column(default=now_seconds())
    created_by: Mapped[str | None] = mapped_column(String(40))
    """The key that it was made with; None of one that the installation made itself."""
    expires_at: Mapped[int | None]
    revoked_at: Mapped[int | None]
    last_used_at: Mapped[int | None]
    """To the minute; see `registry.key_uses`."""
    secret_id: Mapped[str | None] = mapped_column(String(16))
    """Of the server secret that `digest` is made with; None of a key from before there was such an id."""


class File(Base):
    """An uploaded dataset or a result file; its bytes are in the object store."""

    __tablename__ = "files"
    __table_args__ = (
        Index(None, "tenant_id", "created_at", "id"),
        Index(None, "expires_at"),
        one_of("format", FileFormat),
    )

    id: Mapped[str] = mapped_column(PlainText(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    filename: Mapped[str]
    purpose: Mapped[str]
    object_key: Mapped[str] = mapped_column(index=True)
    bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))
    format: Mapped[FileFormat | None] = mapped_column(PlainText())
    """Of its rows; None for a result file."""
    rows: Mapped[int | None]
    report: Mapped[dict[str, Any] | None]
    """What its check found: `container`, and `notes` of what was ignored or converted. Bounded by the reader."""
    created_at: Mapped[int] = mapped_column(default=now_seconds())
    expires_at: Mapped[int | None]
    """From then on no request finds it; row and bytes stay for as long as a live job needs them."""


class IdempotentRequest(Base):
    """A request that made something, or is about to: who sends it again gets its answer. See `registry.idempotency`."""

    __tablename__ = "idempotent_requests"
    __table_args__ = (UniqueConstraint("api_key_id", "idempotency_key"), Index(None, "api_key_id", "fingerprint"))

    id: Mapped[int] = mapped_column(_Serial, primary_key=True, autoincrement=True)
    api_key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"))
    idempotency_key: Mapped[str | None]
    fingerprint: Mapped[str] = mapped_column(String(64))
    """A hash of its route and body."""
    retries: Mapped[int]
    """The highest number of a retry that was given its answer."""
    token: Mapped[str | None] = mapped_column(PlainText(40))
    """Of whoever carries it out; None once that is done."""
    lease_expires_at: Mapped[float]
    answer: Mapped[str | None]
    """As JSON; None while it is carried out, of an answer with a secret in it, and once what it made is deleted."""
    created_at: Mapped[float] = mapped_column(default=now())
    seen_at: Mapped[float] = mapped_column(default=now(), index=True)
    """When it, or the latest retry of it, came or was answered."""


class Job(Base):
    """A fine-tuning job: its spec, its state, and the lease of the attempt that runs it.

    Files and adapter are held by id without foreign keys: OpenAI's contract keeps showing them
    after they are deleted. `registry.files` refuses to delete a file that a live job needs.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index(None, "tenant_id", "created_at", "id"),
        Index(None, "status", "base", "queued_at"),
        Index(None, "tenant_id", "base", "claimed_at"),
        Index(None, "training_file_id"),
        Index(None, "validation_file_id"),
        Index(None, "from_adapter_id"),
        one_of("status", JobStatus),
        one_of("signal", JobSignal),
        one_of("method", Method),
        one_of("priority", JobPriority),
    )

    id: Mapped[str] = mapped_column(PlainText(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))

    base: Mapped[str]
    training_file_id: Mapped[str] = mapped_column(PlainText(40))
    validation_file_id: Mapped[str | None] = mapped_column(PlainText(40))
    suffix: Mapped[str | None]
    seed: Mapped[int]
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata")
    method: Mapped[Method] = mapped_column(String(16), server_default="supervised")
    hyperparameters: Mapped[dict[str, Any]]
    osora: Mapped[dict[str, Any]]
    points: Mapped[list[dict[str, Any]] | None]
    """Of the dial (`osora_common.presets.Point`), as they were when it was accepted; None of a job of before there were
    any."""
    from_adapter_id: Mapped[str | None] = mapped_column(PlainText(40))
    """The adapter or checkpoint that it begins with: not to be deleted while the job is live."""
    plan: Mapped[dict[str, Any] | None]
    """What was "auto" as a `registry.jobs.Plan`, from the first attempt on."""

    status: Mapped[JobStatus] = mapped_column(String(20))
    signal: Mapped[JobSignal | None] = mapped_column(String(10))
    """What the tenant wants of the running attempt; it learns of it at its next heartbeat."""
    attempt: Mapped[int] = mapped_column(default=0)
    """Number of the latest claim. It only grows: object keys contain it."""
    attempts_spent: Mapped[int] = mapped_column(default=0)
    """Claims that ended by a platform fault; `max_attempts` of them fail the job."""
    max_attempts: Mapped[int]
    lease_token: Mapped[str | None] = mapped_column(PlainText(40))
    lease_expires_at: Mapped[float | None]
    worker_id: Mapped[str | None]

    step: Mapped[int] = mapped_column(default=0)
    total_steps: Mapped[int | None]
    trained_tokens: Mapped[int | None]
    estimated_finish: Mapped[int | None]
    error: Mapped[dict[str, Any] | None]
    adapter_id: Mapped[str | None] = mapped_column(PlainText(40))
    fine_tuned_model: Mapped[str | None]
    result_file_ids: Mapped[list[str]] = mapped_column(default=list)

    created_at: Mapped[int] = mapped_column(default=now_seconds())
    priority: Mapped[JobPriority] = mapped_column(String(10), default="normal", server_default="normal")
    interrupted: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether it waits because a worker stopped or was lost, or by another fault of ours: then it goes first."""
    queued_at: Mapped[float] = mapped_column(default=now())
    """When it first joined the queue: its age."""
    claimed_at: Mapped[float | None]
    """When it was last claimed; the latest of a tenant's jobs is when the tenant was served."""
    announced_at: Mapped[float] = mapped_column(default=now())
    """When a wake-up for it was last put in the outbox."""
    started_at: Mapped[int | None]
    finished_at: Mapped[int | None]

    probe_until: Mapped[float | None]
    probe_steps: Mapped[int | None]
    """Of a probe, which is no job that anybody sees: how many steps it takes, and when its rows go."""

    @hybrid_property
    def on_last_chance(self) -> bool:
        """Whether it has already cost workers their lives, or ours some other fault, and has one attempt left.

        It may be what kills them. So it runs beside no other job: if it is, it ends alone, and if it merely stood next
        to one that is, it gets through.
        """
        return (self.attempts_spent > 0) & (self.attempts_spent + 1 >= self.max_attempts)

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended for good."""
        return self.status in TERMINAL


class JobAttempt(Base):
    """One claim of a job by a worker, kept for ever."""

    __tablename__ = "job_attempts"
    __table_args__ = (one_of("outcome", AttemptOutcome),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    token: Mapped[str] = mapped_column(PlainText(40), unique=True)
    worker_id: Mapped[str]
    first_step: Mapped[int]
    """Step of the checkpoint that it began from; 0 for a fresh start."""
    last_step: Mapped[int] = mapped_column(default=0)
    """The last step that it reported."""
    compute_seconds: Mapped[float] = mapped_column(default=0.0)
    """Its share of the time that the training engine's steps took, repeated steps included."""
    started_at: Mapped[int] = mapped_column(default=now_seconds())
    finished_at: Mapped[int | None]
    outcome: Mapped[AttemptOutcome | None] = mapped_column(String(10))
    reason: Mapped[str | None]
    """Why it ended before its job did, in words; its `error` has the same for programs, if it was one."""
    error: Mapped[dict[str, Any] | None]


class Worker(Base):
    """A worker process that has been heard of lately: what the queue's forecast counts on."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    bases: Mapped[list[str]]
    identities: Mapped[dict[str, Any]]
    """The fingerprints of its bases, by name: `[base, basis]`."""
    slots: Mapped[int]
    """Jobs of one base that it trains at once."""
    started_at: Mapped[int] = mapped_column(default=now_seconds())
    seen_at: Mapped[float] = mapped_column(default=now())


class JobEvent(Base):
    """A line of a job's history. Ids of one job grow in commit order; see `registry.jobs.state`."""

    __tablename__ = "job_events"
    __table_args__ = (Index(None, "job_id", "id"), one_of("level", EventLevel), one_of("type", EventType))

    id: Mapped[int] = mapped_column(_Serial, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    created_at: Mapped[int] = mapped_column(default=now_seconds())
    level: Mapped[EventLevel] = mapped_column(String(10))
    type: Mapped[EventType] = mapped_column(String(10))
    message: Mapped[str]
    data: Mapped[dict[str, Any] | None]


class Checkpoint(Base):
    """A point that a job can be called at and, while its state is kept, resume from."""

    __tablename__ = "checkpoints"
    __table_args__ = (UniqueConstraint("job_id", "step"),)

    id: Mapped[str] = mapped_column(PlainText(40), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    attempt: Mapped[int]
    step: Mapped[int]
    ends_epoch: Mapped[bool]
    object_key: Mapped[str | None] = mapped_column(index=True)
    """Of the whole training state; None once two newer checkpoints are there to resume from."""
    sha256: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[int]
    adapter_key: Mapped[str] = mapped_column(index=True)
    """Of the adapter as it was then."""
    adapter_sha256: Mapped[str] = mapped_column(String(64))
    adapter_bytes: Mapped[int]
    base_fingerprint: Mapped[str]
    basis_fingerprint: Mapped[str]
    rank: Mapped[int]
    mix: Mapped[int] = mapped_column(default=0, server_default="0")
    metrics: Mapped[dict[str, Any]]
    created_at: Mapped[int] = mapped_column(default=now_seconds())


class Adapter(Base):
    """An adapter, trained here or brought along, ready to be called by its id or its name."""

    __tablename__ = "adapters"
    __table_args__ = (
        Index(None, "tenant_id", "created_at", "id"),
        one_of("type", AdapterType),
        CheckConstraint("type = 'lora' OR basis_fingerprint IS NOT NULL", name="basis"),
        CheckConstraint("type = 'osora' OR job_id IS NULL", name="origin"),
    )

    id: Mapped[str] = mapped_column(PlainText(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), unique=True)
    """None: no job here has trained it, its tenant brought it."""
    type: Mapped[AdapterType] = mapped_column(String(10), default="osora", server_default="osora")
    name: Mapped[str] = mapped_column(unique=True)
    version: Mapped[int] = mapped_column(default=1)
    step: Mapped[int | None]
    """The step of its job whose state it is."""
    base: Mapped[str]
    base_fingerprint: Mapped[str]
    basis_fingerprint: Mapped[str | None]
    """None for a plain LoRA, which knows no basis."""
    rank: Mapped[int]
    mix: Mapped[int] = mapped_column(default=0, server_default="0")
    parameters: Mapped[int]
    target_modules: Mapped[list[str]]
    object_key: Mapped[str] = mapped_column(index=True)
    sha256: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[int]
    created_at: Mapped[int] = mapped_column(default=now_seconds())


class OutboxMessage(Base):
    """A message for the broker, written with the change that it announces and deleted once published."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(_Serial, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    queue: Mapped[str]
    task: Mapped[str]
    args: Mapped[list[str]]
    available_at: Mapped[float] = mapped_column(default=now(), index=True)


class Blob(Base):
    """A piece of an object in the `db:` store; an object has pieces 0, 1, 2, …"""

    __tablename__ = "blobs"

    key: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[int] = mapped_column(default=now_seconds())
    """Before the data, because SQLite reads a row's columns in order: a listing should not read the objects."""
    data: Mapped[bytes] = mapped_column(LargeBinary)
