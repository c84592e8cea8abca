"""One place for every `OSORA_*` setting that the registry, the API and the worker read."""

import os
import secrets
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from osora_common.base_list import BaseList, parse_bases
from osora_common.files import absolute
from osora_common.log_level import LogLevel
from osora_common.object_store import check_options
from osora_common.secret_values import OwnSecret
from osora_common.store_url import RegistryStoreUrl
from registry.http_values import Hosts, Networks, Origins, Proxies
from registry.server_secrets import ServerSecrets
from registry.urls import BrokerUrl, DatabaseUrl, HttpUrls


def _in_data_dir(template: str) -> Any:
    def default(data: dict[str, Any]) -> str:
        # A data_dir that failed validation is absent here; pydantic then reports that error, not ours.
        return template.format(data_dir=data.get("data_dir", ""))

    return Field(default_factory=default)


def _forever_is_none(value: Any) -> Any:
    return None if value == "forever" else value


# A retention of 0 days could mean "none" or "at once": it is refused.
_Days = Annotated[Annotated[float, Field(gt=0, allow_inf_nan=False)] | None, BeforeValidator(_forever_is_none)]


def _unlimited_is_none(value: Any) -> Any:
    return None if value == "unlimited" else value


_Limit = Annotated[Annotated[int, Field(ge=0, le=2**53)] | None, BeforeValidator(_unlimited_is_none)]
# Whoever waits longer than a day for something waits for ever.
_Seconds = Annotated[float, Field(gt=0, le=24 * 3600, allow_inf_nan=False)]
_SWEEP_MEMBERS = 8


class Settings(BaseSettings):
    """Settings of one Osora installation; every field is the environment variable `OSORA_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="OSORA_", frozen=True, extra="ignore", use_attribute_docstrings=True)

    data_dir: Annotated[Path, AfterValidator(absolute)] = Path("~/.osora")
    """Everything the embedded mode keeps: database, objects, keys, sockets."""

    database_url: DatabaseUrl = _in_data_dir("sqlite:///{data_dir}/osora.db")
    """`sqlite:///path` or `postgresql+psycopg://user:password@host/name`."""

    broker_url: BrokerUrl = _in_data_dir("redis+socket://{data_dir}/run/redis.sock")
    """Where Celery carries wake-ups for the workers."""

    object_store: RegistryStoreUrl = _in_data_dir("file://{data_dir}/objects")
    """`file:///path`, `s3://bucket/prefix`, `gs://`, `az://`, `memory://`, or `db:` (a table of blobs).

    For this installation alone: what its database does not name is deleted after `orphan_grace_hours`.
    """

    object_store_options: dict[str, SecretStr] = Field(default_factory=dict)
    """Endpoint, region, keys of a cloud store, as a JSON object of obstore's configuration names."""

    bases: BaseList = "osora-tiny"
    """Base models on offer, separated by commas: each `name` of a bundled one, `owner/name` on a model hub, or
    `name=path` with a directory or hub name to load it from."""

    inference_urls: HttpUrls = "http://127.0.0.1:8100"
    """The inference servers' URLs, separated by commas."""

    host: str = "127.0.0.1"
    """Where the API listens: `0.0.0.0` for other machines to reach it, behind TLS."""
    port: int = Field(default=8000, ge=0, le=65535)
    """The API's port."""
    trusted_proxies: Proxies = ""
    """Addresses or networks of the proxies in front of the API, separated by commas. Only theirs is believed of
    `X-Forwarded-For` and `X-Forwarded-Proto`: where a request comes from, and whether it came by TLS."""
    allowed_hosts: Hosts = ""
    """The host names that requests may be addressed to, separated by commas, such as `api.example.com`; by default
    any. Set it where browsers can reach the service, against DNS rebinding."""
    cors_origins: Origins = ""
    """Web pages of these origins may call the API from a browser, such as `https://app.example.com`, separated by
    commas; `*` for all. A key goes in a header all the same: cookies are never asked for."""
    docs: bool = True
    """Whether `/docs` and `/openapi.json` are there for everybody."""
    internal_networks: Networks = "127.0.0.0/8,::1"
    """Where `/internal` answers (with `OSORA_INTERNAL_TOKEN`): the addresses of inference servers that read their
    adapters through the API, which is so with `OSORA_OBJECT_STORE=db:`. Never through a proxy."""
    body_memory_bytes: int = Field(default=128 * 1024 * 1024, ge=16 * 1024 * 1024)
    """Memory for the bodies of requests that are there at once. A tenant takes no more of it than is left to others;
    who finds no room waits, and is answered 429 or 503 after 5 seconds."""
    connections_per_address: int = Field(default=1000, ge=1)
    """Connections of one address at once, but for this machine's own and those of `OSORA_TRUSTED_PROXIES`."""
    event_streams: int = Field(default=5000, ge=1)
    """Streams of events that each process of the API keeps open at once; more are answered 503."""
    event_streams_per_tenant: int = Field(default=1000, ge=1)
    """The same of one tenant; more are answered 429."""

    secret_key: OwnSecret | None = None
    """The secret that API keys are hashed with; without one, `{data_dir}/secret.key` is created once."""

    secret_key_fallbacks: tuple[SecretStr, ...] = ()
    """Other secrets that API keys may still be hashed with, as a JSON list: the one before, while `secret_key` is
    rotated."""

    internal_token: OwnSecret | None = None
    """Bearer token between our own processes; without one, `{data_dir}/internal.token` is created once."""

    lease_seconds: _Seconds = 60
    """How long a worker may be silent before its jobs are given to others."""
    heartbeat_seconds: _Seconds = 10
    """How often a worker renews its leases."""
    signal_seconds: _Seconds = 1
    """How often a worker looks whether a job of its is to be cancelled or paused."""
    reconcile_seconds: _Seconds = 15
    """How long a job may wait in an empty queue before its wake-up is written again."""
    max_attempts: int = Field(default=3, ge=1)
    """Attempts that may end by a fault of ours before the job fails."""
    checkpoint_seconds: _Seconds = 30
    """A running job writes a checkpoint so many seconds after its last one, and at the end of each epoch."""
    checkpoint_steps: int | None = Field(default=None, ge=1)
    """The same by steps, if set: a checkpoint is due when either is."""
    worker_jobs: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Jobs that one worker trains at once: so many, or as many as each worker finds room for in its memory."""

    reading_seconds: _Seconds = 1800
    """How long a worker may take to read the rows of a job's file. A job that takes longer fails, and names the line
    that it came to."""
    job_tokens: int = Field(default=200_000_000, ge=1)
    """The most tokens of a job's training file, and of its validation file: a worker holds them in memory, with 16
    bytes each."""

    worker_devices: int = Field(default=1, ge=1)
    """GPUs of its host that one worker spreads each step over (processes, on a CPU); more than one takes one base."""
    worker_shard_base: bool = False
    """Whether each of a worker's devices holds a part of the base's layers only: for one that does not fit a device."""

    basis_rank: Annotated[int, Field(ge=1, le=8192)] | Literal["auto", "full"] = "auto"
    """Singular triplets kept of each weight: the highest rank that an adapter can have. A number, `full` for all that
    there are, or `auto` for the default of a base of its size, which is 128 for all sizes now. A weight that has fewer
    keeps what it has. With a higher rank than before a basis grows at the next start, and adapters keep what they were
    made on."""
    max_upload_bytes: int = Field(default=512 * 1024 * 1024, ge=1)
    """The largest file that can be uploaded."""
    min_free_bytes: int = Field(default=64 * 1024 * 1024, ge=0)
    """Free disk space (data directory, temporary files, database, object store) below which uploads are refused and
    the service is not ready: what is left is for deleting, which writes as well."""
    maintenance_seconds: _Seconds = 1
    """How often each worker looks for lost leases and unsent wake-ups, and the API for webhooks that are due."""

    file_retention_days: _Days = None
    """Days from its upload until a file is deleted; one that a live job uses stays. None, or `forever`: never."""

    adapter_retention_days: _Days = None
    """Days from its publication until an adapter is deleted; one that an alias names stays. None, or `forever`:
    never."""

    event_retention_days: _Days = None
    """Days from the end of their job until events are deleted. None, or `forever`: never."""

    checkpoint_retention_days: _Days = 7
    """Days from the end of their job until checkpoints are deleted; those that an alias names stay. `forever`:
    never."""

    webhook_retention_days: _Days = 7
    """Days until a webhook that was delivered or given up leaves its endpoint's log; `forever`: never."""

    audit_retention_days: _Days = None
    """Whole days until a record leaves the audit log, which then has one that says so; `forever`: never."""

    limit_requests_per_minute: _Limit = 12_000
    """Requests that a tenant may make in a minute. This and all limits below hold for each tenant, as far as the
    operator has set it no others (`osora tenant limits`). `unlimited`: no limit."""
    limit_tokens_per_minute: _Limit = 20_000_000
    """Tokens that a tenant's generations may read and write in a minute."""
    limit_concurrent_generations: _Limit = 512
    """Generations of a tenant at once; one request is one, whatever its `n`."""
    limit_concurrent_uploads: _Limit = 32
    """Uploads of a tenant at once: files, parts of one, what is completed of parts, adapters."""
    limit_concurrent_jobs: _Limit = 256
    """Jobs of a tenant that run at once; those beyond wait in the queue."""
    limit_queued_jobs: _Limit = 100
    """Jobs of a tenant that wait or are paused; one more is refused."""
    limit_stored_bytes: _Limit = 100 * 1024**3
    """What a tenant's files, parts, adapters and checkpoints may come to. What is trained beyond it is kept, and
    anything new is refused until something is deleted."""
    limit_compute_seconds_per_day: _Limit = None
    """Seconds of training that a tenant may use up in a day (UTC) before its waiting jobs wait for the next."""
    limit_compute_seconds_per_month: _Limit = None
    """The same for a calendar month (UTC): a budget."""
    limit_tokens_per_month: _Limit = None
    """Tokens that a tenant's generations may read and write in a calendar month (UTC): a budget."""
    limit_priority: Literal["low", "normal", "high"] = "normal"
    """The highest priority that a tenant's jobs may have; an operator's own may have any."""

    webhooks_allow_private: bool = False
    """Whether webhooks may also go to `http://`, to this machine and to private networks: never where tenants are
    strangers, because it lets each of them call what stands beside the service."""

    orphan_grace_hours: float = Field(default=24, ge=1, allow_inf_nan=False)
    """How long an object may be without a row that names it: an upload comes before its row."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where bases are loaded: `auto` takes a GPU if there is one."""
    log_level: LogLevel = "INFO"
    """`DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`."""

    @model_validator(mode="after")
    def _devices_and_bases_fit(self) -> Self:
        if self.worker_devices > 1 and len(self.base_paths) > 1:
            raise ValueError(
                f"OSORA_BASES names {len(self.base_paths)} bases, and with OSORA_WORKER_DEVICES={self.worker_devices} "
                "a worker serves one: start a worker for each base, with that base alone in its OSORA_BASES"
            )
        if self.worker_shard_base and self.worker_devices == 1:
            raise ValueError("OSORA_WORKER_SHARD_BASE needs OSORA_WORKER_DEVICES of at least 2")
        return self

    @model_validator(mode="after")
    def _store_can_be_opened(self) -> Self:
        options = {name: value.get_secret_value() for name, value in self.object_store_options.items()}
        check_options(self.object_store, options)
        return self

    @model_validator(mode="after")
    def _a_lease_outlasts_a_heartbeat(self) -> Self:
        if self.lease_seconds <= self.heartbeat_seconds:
            raise ValueError(
                f"OSORA_LEASE_SECONDS ({self.lease_seconds:g}) must be above OSORA_HEARTBEAT_SECONDS "
                f"({self.heartbeat_seconds:g}), or every lease ends before it is renewed: three times as long is a "
                "good value"
            )
        return self

    @property
    def sweep_members(self) -> int:
        """The most members of a sweep: as many as jobs in a worker, or 8 where each worker finds out for itself.

        So a request is good or bad whichever workers are alive, and each has slots for whatever was accepted.
        """
        return _SWEEP_MEMBERS if self.worker_jobs == "auto" else self.worker_jobs

    @property
    def base_paths(self) -> dict[str, str]:
        """Base name to the path (or Hugging Face name) that it is loaded from, in the order given."""
        return dict(parse_bases(self.bases))

    @property
    def inference_url_list(self) -> list[str]:
        """The inference servers' base URLs, without trailing slashes."""
        return [url.rstrip("/") for url in _listed(self.inference_urls)]

    @property
    def cors_origin_list(self) -> list[str]:
        """The origins whose pages may call the API."""
        return _listed(self.cors_origins)

    @property
    def allowed_host_list(self) -> list[str]:
        """The host names that requests may be addressed to; none where all may be."""
        return _listed(self.allowed_hosts)

    @property
    def server_secrets(self) -> ServerSecrets:
        """What API keys are hashed with; created on first use if none is configured. The file may hold several, a line
        each, the current one first."""
        fallbacks = tuple(each.get_secret_value() for each in self.secret_key_fallbacks)
        if self.secret_key is not None:
            return ServerSecrets(self.secret_key.get_secret_value(), fallbacks)
        current, *before = _secret_or_file(None, self.secret_key_path).split("\n")
        return ServerSecrets(current, (*before, *fallbacks))

    @property
    def secret_key_path(self) -> Path:
        """Where the secrets are kept that are not configured."""
        return self.data_dir / "secret.key"

    @property
    def internal_secret(self) -> str:
        """The bearer token of calls between our own processes; created on first use if none is configured."""
        return _secret_or_file(self.internal_token, self.data_dir / "internal.token")

    @property
    def local_key_path(self) -> Path:
        """The file with the local API key, which the command line finds by itself."""
        return self.data_dir / "local.key"


def _listed(value: str) -> list[str]:
    return [item.strip() for item in value.split(",") if item.strip()]


def _secret_or_file(configured: SecretStr | None, path: Path) -> str:
    if configured is not None:
        return configured.get_secret_value()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _create_once(path, secrets.token_urlsafe(32))
    return path.read_text().strip()


def _create_once(path: Path, text: str) -> None:
    # Several processes may start at once: link() publishes a complete file and lets exactly one of them win.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # mkstemp opens with mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "\n")
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(temporary)


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The process's settings, read from the environment once, on first use."""
    return Settings()
