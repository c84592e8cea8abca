"""The `OSORA_*` settings of the inference server, which cannot share the registry's class: that knows databases."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from osora_common.base_list import BaseList, parse_bases
from osora_common.files import absolute
from osora_common.log_level import LogLevel
from osora_common.object_store import check_options
from osora_common.secret_values import OwnSecret
from osora_common.store_url import DATABASE_STORE, RegistryStoreUrl, StoreUrl


class InferenceSettings(BaseSettings):
    """Names that `registry.settings.Settings` has too mean the same there."""

    model_config = SettingsConfigDict(env_prefix="OSORA_", frozen=True, extra="ignore", use_attribute_docstrings=True)

    data_dir: Annotated[Path, AfterValidator(absolute)] = Path("~/.osora")
    bases: BaseList = "osora-tiny"
    object_store: RegistryStoreUrl | None = None
    object_store_options: dict[str, SecretStr] = Field(default_factory=dict)
    artifact_store: StoreUrl | None = None
    """Where to read adapters from, if not the object store itself. With `OSORA_OBJECT_STORE=db:` this is the API's
    `http://host:port/internal/objects`."""
    internal_token: OwnSecret | None = None
    basis_rank: Annotated[int, Field(ge=1, le=8192)] | Literal["auto", "full"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    log_level: LogLevel = "INFO"

    inference_host: str = "127.0.0.1"
    """Where the inference server listens. Only the API needs to reach it."""
    inference_port: int = Field(default=8100, ge=0, le=65535)
    """The inference server's port."""
    inference_rows: int = Field(default=32, ge=1)
    """Requests that decode together, if memory allows so many."""
    inference_max_length: int = Field(default=8192, ge=2)
    """Tokens of prompt and answer together, if base and memory allow so many."""
    inference_kv_bytes: int | None = Field(default=None, ge=1)
    """Memory for the keys and values of all bases: 34 GB hold 32 requests of 8192 tokens of a Llama-8B in bfloat16. By
    default as much as so many requests need, and at most 80 % of what is free on a GPU, half of it on a CPU. With less,
    fewer requests run at once. The log says at the start how many."""
    inference_adapters: int = Field(default=256, ge=1)
    """Adapters that lie in the bank at once."""
    inference_lora_ranks: int = Field(default=256, ge=0)
    """Ranks of the plain LoRAs that are computed at once: 256 are sixteen LoRAs of rank 16. A LoRA of a larger rank is
    refused, and one that finds no room waits. The memory (1.3 GB of a Llama-8B in bfloat16) is set aside, and taken
    when the first LoRA comes; where memory is short there are fewer, and the log says so."""
    inference_tenant_share: float | None = Field(default=None, gt=0, le=1)
    """The part of the rows, and of the room for keys and values, that one tenant's requests hold at once: what comes
    from it beyond waits, so that others never wait for its answers to end. By default 7/8 on a GPU, and half on a CPU,
    where each row more makes all answers slower. 1 suits a service with one tenant."""
    inference_queue: int = Field(default=512, ge=1)
    """Requests that may wait; beyond them the server answers 429. A tenant may take no more places than it leaves
    free for others."""
    inference_cache_bytes: int = Field(default=1024**3, ge=0)
    """Host memory for adapters behind the bank."""

    inference_usage_bytes: int = Field(default=256 * 1024**2, ge=1)
    """Disk for records of usage that no API has fetched yet, in the folder `usage` of the data directory: these are a
    million. What is more is lost, and the log says so."""

    @property
    def base_paths(self) -> dict[str, str]:
        """Base name to the path (or hub name) that it is loaded from."""
        return dict(parse_bases(self.bases))

    @model_validator(mode="after")
    def _adapters_can_be_read(self) -> Self:
        if self.store_url == DATABASE_STORE:
            raise ValueError(
                "OSORA_OBJECT_STORE is db:, which keeps adapters in the database that the inference server does not "
                "know: set OSORA_ARTIFACT_STORE to the API's http://host:port/internal/objects"
            )
        options = {name: value.get_secret_value() for name, value in self.object_store_options.items()}
        check_options(self.store_url, options)
        return self

    @property
    def store_url(self) -> str:
        """The store to read from."""
        return self.artifact_store or self.object_store or f"file://{self.data_dir}/objects"

    def token(self) -> str | None:
        """The bearer token of our own processes: the setting, or the file that the API makes; None before that."""
        if self.internal_token is not None:
            return self.internal_token.get_secret_value()
        path = self.data_dir / "internal.token"
        return path.read_text().strip() if path.exists() else None
