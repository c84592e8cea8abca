"""The Python SDK.

    from osora import Osora

    osora = Osora()                                   # finds a running `osora serve` by itself
    data = osora.files.upload("tickets.jsonl")
    job = osora.jobs.create("osora-tiny", data["id"], suffix="tickets")
    for event in osora.jobs.events(job["id"]):        # until the job has ended
        print(event["message"])
    adapter_id = osora.jobs.get(job["id"])["osora"]["adapter_id"]
    print(osora.generate("My parcel is late.", adapter=adapter_id)["text"])

Objects are dictionaries as the service sends them (types: `osora.schemas`). Failures raise `OsoraAPIError`
(the service said no) or `OsoraConnectionError` (there was no service, or no whole answer). The client is thread-safe.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from osora.basis import library_folder, pull
from osora.discovery import discover
from osora.errors import OsoraError
from osora.schemas import (
    Adapter,
    AdapterFormat,
    Alias,
    AliasVersion,
    Base,
    Checkpoint,
    Event,
    File,
    Generation,
    Job,
    Key,
    Message,
    Page,
    WebhookDelivery,
    WebhookEndpoint,
)
from osora.streams import GenerationStream, follow
from osora.transport import Transport, segment


class Osora:
    """A client of one Osora service.

    Args:
        base_url: the service's URL; default `OSORA_URL`, then the local `osora serve`, then port 8000 here.
        api_key: default `OSORA_API_KEY`, then, for a service on this machine only, its local key.
    """

    def __init__(self, base_url: str | None = None, api_key: str | None = None) -> None:
        self._transport = Transport(discover(base_url, api_key))
        self.files = Files(self._transport)
        self.jobs = Jobs(self._transport)
        self.adapters = Adapters(self._transport)
        self.aliases = Aliases(self._transport)
        self.keys = Keys(self._transport)
        self.webhooks = Webhooks(self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    @property
    def url(self) -> str:
        return self._transport.target.url

    def generate(self, prompt: str | Sequence[Message], *, adapter: str | None = None, **options: Any) -> Generation:
        """Text for a prompt (a string, or messages of a conversation), by an adapter, an alias or the bare base.

        `options` are the fields of POST /generate: base, max_tokens, temperature, top_k, top_p, min_p,
        repetition_penalty, presence_penalty, frequency_penalty, logit_bias, seed, stop, stop_tokens, n (answers in
        `choices`), logprobs, top_logprobs, echo, json_schema, regex, tools, tool_choice, parallel_tool_calls, strength,
        user.
        """
        generation: Generation = self._transport.request(
            "POST", "/generate", json=_generation_body(prompt, adapter, options)
        )
        return generation

    def stream(
        self, prompt: str | Sequence[Message], *, adapter: str | None = None, **options: Any
    ) -> GenerationStream:
        """Like `generate`, piece by piece: iterate the answer; its `result` is there at the end.

        With n, the pieces are those of the first answer; the others are in the result.
        """
        return GenerationStream(self._transport, _generation_body(prompt, adapter, options))

    def bases(self) -> Page[Base]:
        """The bases that the service offers."""
        return _data(self._transport.request("GET", "/bases"))

    def pull_basis(self, base: str, folder: str | os.PathLike[str] | None = None) -> Path:
        """Bring the stored basis of a base (or the one of this hash) here, so that its adapters load in PEFT.

        `folder`: default where `osora_core` finds it by itself; another is named to it in OSORA_BASIS_FROM. Returns the
        file, which is there whole or not at all. What breaks off is taken up again, also by another call.
        """
        return pull(self._transport, base, library_folder() if folder is None else Path(folder))

    def ready(self) -> dict[str, Any]:
        """The state of the service's parts; an unready service is an answer, not an error."""
        state: dict[str, Any] = self._transport.request("GET", "/ready", accept=(503,))
        return state


class _Resource:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport


class Files(_Resource):
    """Datasets."""

    def upload(
        self, path: str | os.PathLike[str], purpose: str = "fine-tune", *, expires_after: int | None = None
    ) -> File:
        """Upload a JSONL file, to last so many seconds (an hour to 30 days) or until it is deleted.

        The service validates it; the error of an invalid one names line and field.
        """
        source = Path(path)
        data: dict[str, Any] = {"purpose": purpose}
        if expires_after is not None:
            data |= {"expires_after[anchor]": "created_at", "expires_after[seconds]": expires_after}
        with source.open("rb") as stream:
            file: File = self._transport.request(
                "POST", "/files", data=data, files={"file": (_sendable(source.name), stream)}
            )
        return file

    def list(self, limit: int | None = None, after: str | None = None) -> Page[File]:
        return _data(self._transport.request("GET", "/files", params=_page(limit, after)))

    def get(self, file_id: str) -> File:
        file: File = self._transport.request("GET", f"/files/{segment(file_id)}")
        return file

    def content(self, file_id: str) -> bytes:
        """A file's bytes: an uploaded dataset, or a CSV that a job names in `result_files`."""
        with self._transport.stream("GET", f"/files/{segment(file_id)}/content") as response:
            return response.read()

    def delete(self, file_id: str) -> None:
        self._transport.request("DELETE", f"/files/{segment(file_id)}")


class Jobs(_Resource):
    """Fine-tuning jobs."""

    def create(
        self,
        model: str,
        training_file: str,
        *,
        validation_file: str | None = None,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Job:
        """Queue a job on uploaded files; with an `idempotency_key` only once within a day, however often it is sent.

        `fields` are those of POST /jobs: suffix, seed, metadata, hyperparameters
        (n_epochs, batch_size, learning_rate_multiplier), osora (rank, learning_rate: a number, a list
        of them, "sweep" or "auto", max_length, …), or method={"type": "dpo"} for a file of preferences.
        """
        body = {"model": model, "training_file": training_file, "validation_file": validation_file, **fields}
        job: Job = self._transport.request(
            "POST",
            "/jobs",
            json={k: v for k, v in body.items() if v is not None},
            headers={} if idempotency_key is None else {"idempotency-key": idempotency_key},
        )
        return job

    def get(self, job_id: str) -> Job:
        return self._job("GET", job_id)

    def cancel(self, job_id: str) -> Job:
        return self._job("POST", job_id, "/cancel")

    def pause(self, job_id: str) -> Job:
        return self._job("POST", job_id, "/pause")

    def resume(self, job_id: str) -> Job:
        return self._job("POST", job_id, "/resume")

    def events(
        self,
        job_id: str,
        after: str | None = None,
        patience_seconds: float = 60.0,
        on_lost: Callable[[OsoraError], None] | None = None,
    ) -> Iterator[Event]:
        """Events from the first (or after the one named), live until the job has ended.

        Survives lost connections, of each of which `on_lost` hears, and a restarting service; gives up after
        `patience_seconds` without either.
        """
        return follow(self._transport, f"/jobs/{segment(job_id)}/events", after, patience_seconds, on_lost)

    def list_events(self, job_id: str, limit: int | None = None, after: str | None = None) -> Page[Event]:
        """The events so far, newest first, without waiting."""
        path = f"/jobs/{segment(job_id)}/events"
        return _data(self._transport.request("GET", path, params=_page(limit, after)))

    def checkpoints(self, job_id: str, limit: int | None = None, after: str | None = None) -> Page[Checkpoint]:
        """Newest first. Each can be called: `generate(..., adapter=checkpoint["fine_tuned_model_checkpoint"])`."""
        path = f"/jobs/{segment(job_id)}/checkpoints"
        return _data(self._transport.request("GET", path, params=_page(limit, after)))

    def list(
        self, limit: int | None = None, after: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> Page[Job]:
        """Newest first; with `metadata`, only those that have all of these pairs."""
        pairs = {f"metadata[{key}]": value for key, value in (metadata or {}).items()}
        return _data(self._transport.request("GET", "/jobs", params=_page(limit, after) | pairs))

    def _job(self, method: str, job_id: str, action: str = "") -> Job:
        job: Job = self._transport.request(method, f"/jobs/{segment(job_id)}{action}")
        return job


class Adapters(_Resource):
    """What jobs made. An adapter is named by its id or by its model name (`ft:…`)."""

    def list(self, limit: int | None = None, after: str | None = None) -> Page[Adapter]:
        """Newest first."""
        return _data(self._transport.request("GET", "/adapters", params=_page(limit, after)))

    def get(self, adapter: str) -> Adapter:
        found: Adapter = self._transport.request("GET", f"/adapters/{segment(adapter)}")
        return found

    def download(self, adapter: str, path: str | os.PathLike[str], format: AdapterFormat = "osora") -> int:
        """Write the adapter, zipped, to `path`, whole or not at all; returns its bytes.

        `format`: "osora" is the PEFT directory as it was trained, "lora" the same as a LoRA, "merged" a checkpoint of
        the base with the adapter folded in, "gguf" the same for llama.cpp and Ollama.
        """
        target = Path(path)
        part = target.with_name(f".{target.name}.part")
        size = 0
        try:
            source = f"/adapters/{segment(adapter)}/download"
            with self._transport.stream("GET", source, params={"format": format}) as response, part.open("wb") as out:
                for chunk in response.iter_bytes():
                    size += out.write(chunk)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return size

    def delete(self, adapter: str) -> None:
        self._transport.request("DELETE", f"/adapters/{segment(adapter)}")


class Aliases(_Resource):
    """Names of your own for models: adapters, checkpoints and bases."""

    def set(self, name: str, targets: str | Mapping[str, int], *, expected_version: int | None = None) -> Alias:
        """Make an alias of a model, or of several with their weights, or move it there.

        `expected_version`: only if the alias is at this version (0: not there yet).
        """
        stands_for = {"target": targets} if isinstance(targets, str) else {"targets": dict(targets)}
        body = {"name": name, **stands_for, "expected_version": expected_version}
        return self._alias("POST", "/aliases", json={k: v for k, v in body.items() if v is not None})

    def get(self, name: str) -> Alias:
        return self._alias("GET", f"/aliases/{segment(name)}")

    def list(self, limit: int | None = None, after: str | None = None) -> Page[Alias]:
        """Newest first; the next page is `after` the name of the last one."""
        return _data(self._transport.request("GET", "/aliases", params=_page(limit, after)))

    def history(self, name: str) -> Page[AliasVersion]:
        """The versions that are kept, newest first."""
        return _data(self._transport.request("GET", f"/aliases/{segment(name)}/history"))

    def rollback(self, name: str, version: int | None = None, *, expected_version: int | None = None) -> Alias:
        """Bring back what it stood for before its last change, or in another version."""
        body = {"version": version, "expected_version": expected_version}
        path = f"/aliases/{segment(name)}/rollback"
        return self._alias("POST", path, json={k: v for k, v in body.items() if v is not None})

    def delete(self, name: str) -> None:
        """What it stands for stays."""
        self._transport.request("DELETE", f"/aliases/{segment(name)}")

    def _alias(self, method: str, path: str, **sent: Any) -> Alias:
        alias: Alias = self._transport.request(method, path, **sent)
        return alias


class Keys(_Resource):
    """API keys: an `admin` key's calls are about its own tenant's, an `operator` key's about every tenant's."""

    def create(self, name: str, *, tenant: str | None = None, scopes: Sequence[str] | None = None) -> Key:
        """A new key. Its secret is in the answer's `key`, this once."""
        body = {"name": name, "tenant": tenant, "scopes": list(scopes) if scopes else None}
        key: Key = self._transport.request("POST", "/keys", json={k: v for k, v in body.items() if v is not None})
        return key

    def list(self, tenant: str | None = None) -> Page[Key]:
        """Newest first, revoked ones too; with `tenant`, that one's only."""
        return _data(self._transport.request("GET", "/keys", params=None if tenant is None else {"tenant": tenant}))

    def revoke(self, key_id: str) -> None:
        self._transport.request("DELETE", f"/keys/{segment(key_id)}")


class Webhooks(_Resource):
    """Addresses that are told of events."""

    def create(self, url: str, event_types: Sequence[str], *, name: str) -> WebhookEndpoint:
        """A new endpoint. Its secret is in the answer's `signing_secret`, this once."""
        body = {"url": url, "event_types": list(event_types), "name": name}
        return self._endpoint("POST", "/webhook_endpoints", json=body)

    def list(self, limit: int | None = None, after: str | None = None) -> Page[WebhookEndpoint]:
        """Newest first."""
        return _data(self._transport.request("GET", "/webhook_endpoints", params=_page(limit, after)))

    def get(self, endpoint_id: str) -> WebhookEndpoint:
        return self._endpoint("GET", f"/webhook_endpoints/{segment(endpoint_id)}")

    def update(self, endpoint_id: str, *, enabled: bool | None = None, **fields: Any) -> WebhookEndpoint:
        """Change its `name`, `url` or `event_types`, or whether it is told of anything."""
        body = fields if enabled is None else {**fields, "osora": {"enabled": enabled}}
        return self._endpoint("POST", f"/webhook_endpoints/{segment(endpoint_id)}", json=body)

    def rotate_secret(self, endpoint_id: str, *, keep_old: bool = False) -> WebhookEndpoint:
        """A new secret, in the answer's `signing_secret`. With `keep_old` the old one is valid for a day more."""
        path = f"/webhook_endpoints/{segment(endpoint_id)}/rotate_secret"
        return self._endpoint("POST", path, json={"keep_old_secret_active_for_24_hours": keep_old})

    def test(self, endpoint_id: str, event_type: str) -> dict[str, Any]:
        """Send a sample; what answered is in `status_code`, and why that is no success in `osora.error`."""
        path = f"/webhook_endpoints/{segment(endpoint_id)}/test"
        result: dict[str, Any] = self._transport.request("POST", path, json={"event_type": event_type})
        return result

    def deliveries(self, endpoint_id: str, limit: int | None = None, after: str | None = None) -> Page[WebhookDelivery]:
        """What an endpoint was told, newest first."""
        path = f"/webhook_endpoints/{segment(endpoint_id)}/deliveries"
        return _data(self._transport.request("GET", path, params=_page(limit, after)))

    def event_types(self) -> Sequence[str]:
        """All types of events."""
        return _data(self._transport.request("GET", "/webhook_event_types"))

    def delete(self, endpoint_id: str) -> None:
        self._transport.request("DELETE", f"/webhook_endpoints/{segment(endpoint_id)}")

    def _endpoint(self, method: str, path: str, **sent: Any) -> WebhookEndpoint:
        endpoint: WebhookEndpoint = self._transport.request(method, path, **sent)
        return endpoint


def _generation_body(prompt: str | Sequence[Message], adapter: str | None, options: dict[str, Any]) -> dict[str, Any]:
    asked = {"prompt": prompt} if isinstance(prompt, str) else {"messages": list(prompt)}
    body = {**asked, "adapter_id": adapter, **options}
    return {key: value for key, value in body.items() if value is not None}


def _page(limit: int | None, after: str | None) -> dict[str, str | int]:
    page = {"limit": limit, "after": after}
    return {key: value for key, value in page.items() if value is not None}


def _data(answer: Any) -> Page[Any]:
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
        raise OsoraError("What answers is not Osora: a list of objects was asked for, and it sent something else")
    return Page(answer["data"], bool(answer.get("has_more")))


def _sendable(file_name: str) -> str:
    # A name on a disk need not be UTF-8; it is only shown.
    return os.fsencode(file_name).decode(errors="replace")
