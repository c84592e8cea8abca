"""One of everything that a tenant can own, with a mark in each text: where it is seen, something of the tenant's is."""

import io
import json
import re
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from registry import files, jobs, uploads, webhooks
from registry.context import Registry
from registry.ids import checkpoint_id, checkpoint_name, new_id
from registry.jobs import NewResultFile
from registry.models import Adapter
from registry.names import aliases, permissions
from registry.tenants import ALL_SCOPES, Principal, authenticate, create_key, ensure_tenant
from registry.webhooks.tables import WebhookDelivery
from tests.support.jobs import CHAT_ROW, claim, new_adapter, record_checkpoint, submit

STEP = 20
ZIP = b"PK, as far as the API knows"
_STAMPED = "[0-9a-z]{20,27}"
# No character of an identifier stays what it is.
_NEXT = str.maketrans("0123456789abcdefghjkmnpqrstvwxyz", "123456789abcdefghjkmnpqrstvwxyz0")

# What the document's examples look like, and what of an estate stands in their place. The first that fits counts.
_KINDS = {
    rf"file-{_STAMPED}": "file",
    rf"ftjob-{_STAMPED}": "job",
    rf"adp-{_STAMPED}": "adapter",
    rf"upload_{_STAMPED}": "upload",
    rf"part_{_STAMPED}": "part",
    rf"key-{_STAMPED}": "key_id",
    rf"webhook-{_STAMPED}": "endpoint",
    rf"wh_{_STAMPED}": "delivery",
    rf"cp_{_STAMPED}": "permission",
    rf"tenant-{_STAMPED}": "neighbour",
    r"ft:osora-tiny:default:.*:ckpt-step-\d+": "checkpoint_name",
    r"ft:osora-tiny:default:.*": "adapter_name",
    r"triage|ft:gpt-4o-mini.*": "alias",
    r"acme": "tenant",
}
EXAMPLE_OF_A_BASIS = "e3b98a4da31a127d2f0d4c1ad6f1b6dd5c0de5f1d5b1d6a4bb54a1a6f0c2e9d7"
# Examples that are nobody's own.
COMMON = {"smollm2-135m", "osora-tiny", EXAMPLE_OF_A_BASIS}


@dataclass(frozen=True)
class Estate:
    """What one tenant owns, by kind, as the API calls it."""

    principal: Principal
    mark: str
    ids: dict[str, str]
    neighbour: str
    """The id of another tenant, with which it shares."""
    object_keys: list[str]

    def key(self, registry: Registry, *scopes: str) -> str:
        """A new key of the tenant's."""
        with registry.transaction() as session:
            return create_key(session, self.principal.tenant_name, "more", scopes)[1]

    def instead_of(self, example: Any) -> Any:
        """The example with each of its ids and names replaced by one of the estate's."""
        match example:
            case str():
                kind = kind_of(example)
                return example if kind is None else {**self.ids, "neighbour": self.neighbour}[kind]
            case dict():
                return {self.instead_of(name): self.instead_of(value) for name, value in example.items()}
            case list():
                found = [self.instead_of(item) for item in example]
                return [item for index, item in enumerate(found) if item not in found[:index]]
        return example


def kind_of(example: str) -> str | None:
    """What an example of the document's is an example of; None for what belongs to no tenant."""
    return next((kind for pattern, kind in _KINDS.items() if re.fullmatch(pattern, example)), None)


def unlike(identifier: str) -> str:
    """One of the same length and form that nobody has."""
    checkpoint = re.fullmatch(r"(ftckpt_|ft:.*:)(\w{16})((?::ckpt-step-|_)\d+)", identifier)
    if checkpoint:
        return checkpoint[1] + unlike(checkpoint[2]) + checkpoint[3]
    return identifier[:-3] + identifier[-3:].translate(_NEXT)


def build(registry: Registry, tenant: str) -> Estate:
    """Fills a tenant, which may be there already. Nothing of it is due: no chore of the API's changes a row."""
    mark = f"mark-{tenant}"
    with registry.transaction() as session:
        key, plaintext = create_key(session, tenant, f"{mark} key", set(ALL_SCOPES) - {"operator"})
        principal = authenticate(session, plaintext)
    content = _content(mark)
    free, used = (
        files.ingest(registry, principal, io.BytesIO(content), f"{mark}-{number}.jsonl", "fine-tune")
        for number in range(2)
    )
    waiting = submit(registry, principal, training_file=used.id, suffix=mark, metadata={"note": mark})
    adapter = _train(registry, principal, used.id, mark)
    with registry.reading() as session:
        job = jobs.get(session, principal, adapter.job_id or "")
    upload, part = _upload(registry, principal, f"{mark}-parts.jsonl", content)
    with registry.transaction() as session:
        alias = aliases.put(
            session, principal, f"{mark}-alias", {adapter.id: 1}, bases=registry.settings.base_paths
        ).name
        neighbour = ensure_tenant(session, "neighbour").id
        (permission,) = permissions.grant(session, principal, checkpoint_id(job.id, STEP), [neighbour])
        endpoint, delivery = _webhooks(session, registry, principal, mark)
        ids = {
            "file": free.id,
            "used_file": used.id,
            "result_file": job.result_file_ids[0],
            "job": job.id,
            "waiting_job": waiting.id,
            "adapter": adapter.id,
            "adapter_name": adapter.name,
            "checkpoint": checkpoint_id(job.id, STEP),
            "checkpoint_name": checkpoint_name(job.base, tenant, mark, job.id, STEP),
            "upload": upload,
            "part": part,
            "key_id": key.id,
            "endpoint": endpoint,
            "delivery": delivery,
            "permission": permission.id,
            "tenant_id": principal.tenant_id,
            "alias": alias,
            "tenant": tenant,
        }
    return Estate(principal, mark, ids, neighbour, [free.object_key, used.object_key, adapter.object_key])


def _content(mark: str) -> bytes:
    asked = {"role": "user", "content": f"{mark} asks"}
    return (json.dumps({"messages": [asked, CHAT_ROW["messages"][1]]}) + "\n").encode()


def _train(registry: Registry, principal: Principal, file_id: str, mark: str) -> Adapter:
    """An adapter with its job, a checkpoint, events and a result file."""
    attempt = claim(registry, submit(registry, principal, training_file=file_id, suffix=mark))
    new = replace(new_adapter(attempt), bytes=len(ZIP))
    results = f"{mark},train_loss\n".encode()
    listed = NewResultFile(f"{mark}.csv", f"results/{attempt.job_id}.csv", "c" * 64, len(results))
    registry.store.put(listed.object_key, results)
    registry.store.put(new.object_key, ZIP)
    with registry.transaction() as session:
        jobs.add_event(session, attempt, f"{mark} says")
        record_checkpoint(session, attempt, STEP)
        registry.store.put(f"checkpoints/{attempt.job_id}/{attempt.number}/{STEP}.zip", ZIP)
        return jobs.complete(
            session, attempt, step=STEP, trained_tokens=9, adapter=new, metrics={}, result_files=[listed]
        )


def _upload(registry: Registry, principal: Principal, filename: str, content: bytes) -> tuple[str, str]:
    with registry.transaction() as session:
        begun = uploads.create(
            session,
            principal,
            filename=filename,
            purpose="fine-tune",
            bytes=len(content),
            file_expires_after=None,
            limit=len(content),
        )
        upload_id = begun.upload.id
    part = uploads.add_part(registry, principal, upload_id, io.BytesIO(content), lambda session, part: None)
    return upload_id, part.id


def _webhooks(session: Session, registry: Registry, principal: Principal, mark: str) -> tuple[str, str]:
    """An endpoint, and in its log what was delivered."""
    endpoint = webhooks.create(
        session,
        principal,
        registry.settings,
        name=mark,
        url=f"http://127.0.0.1:1024/{mark}",
        event_types=[*webhooks.EVENT_TYPES],
    )
    delivery = WebhookDelivery(
        id=new_id("wh_"),
        endpoint_id=endpoint.id,
        event_id=new_id("evt_"),
        event_type="adapter.published",
        data={"id": mark},
        status="delivered",
    )
    session.add(delivery)
    session.flush()
    return endpoint.id, delivery.id
