"""What a request names, resolved: the base and the adapter."""

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy.orm import Session

from api.generate.schemas import GenerateRequest
from registry import jobs
from registry.context import Registry
from registry.errors import InvalidRequest, NotFound
from registry.ids import parse_checkpoint
from registry.references import AdapterRef, refer
from registry.tenants import Principal

_REF_FIELDS = (
    "id", "name", "version", "job_id", "step", "object_key", "sha256", "base_fingerprint", "basis_fingerprint",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A base, and the adapter on it, if any."""

    base: str
    adapter: AdapterRef | None

    def payload(self) -> dict[str, Any]:
        """As an inference server wants it."""
        ref = None if self.adapter is None else asdict(self.adapter)
        return {"base": self.base, "adapter": ref and {name: ref[name] for name in _REF_FIELDS}}


def resolve(registry: Registry, principal: Principal, request: GenerateRequest) -> Target:
    """The request's target.

    Raises:
        NotFound: no such adapter or checkpoint of the tenant's, or no such base.
        InvalidRequest: the adapter is not one of the base that was named.
    """
    if request.adapter_id is None:
        return Target(_base(registry, request.base), None)
    with registry.reading() as session:
        if request.adapter_id.startswith("ftjob-"):
            raise _job_is_no_adapter(session, principal, request.adapter_id, "adapter_id")
        ref = refer(session, principal, request.adapter_id)
    if request.base not in (None, ref.base):
        raise InvalidRequest(
            f"adapter {request.adapter_id!r} is on the base {ref.base!r}, not {request.base!r}",
            param="base",
            next_action="leave out `base`",
        )
    return Target(ref.base, ref)


def resolve_model(registry: Registry, principal: Principal, model: str) -> Target:
    """What OpenAI's one field names. Raises `NotFound`: no base, and no adapter or checkpoint of the tenant's."""
    offered = registry.settings.base_paths
    if model in offered:
        return Target(model, None)
    with registry.reading() as session:
        if model.startswith("ftjob-"):
            raise _job_is_no_adapter(session, principal, model, "model")
        try:
            ref = refer(session, principal, model, param="model")
        except NotFound as error:
            raise NotFound(
                error.message
                if parse_checkpoint(model)
                else f"no model {model!r}: call a base ({', '.join(offered)}) or an adapter of yours",
                param="model",
                code="model_not_found",
                next_action="GET /v1/models lists them",
            ) from error
    return Target(ref.base, ref)


def _base(registry: Registry, named: str | None) -> str:
    offered = list(registry.settings.base_paths)
    if named is None:
        return offered[0]
    if named not in offered:
        raise NotFound(
            f"no base {named!r}",
            param="base",
            code="base_not_found",
            next_action=f"choose one of {', '.join(offered)}",
        )
    return named


def _job_is_no_adapter(session: Session, principal: Principal, job_id: str, param: str) -> NotFound:
    job = jobs.get(session, principal, job_id, param=param)
    if job.adapter_id is not None:
        next_action = f"call its adapter {job.adapter_id!r}"
    elif job.is_terminal:
        next_action = "call the adapter of another job"
    else:
        next_action = "call one of its checkpoints, or wait until it has succeeded and has an `osora.adapter_id`"
    return NotFound(
        f"{job_id!r} is a job (status: {job.status}), not an adapter",
        param=param,
        code="adapter_not_found",
        next_action=next_action,
    )
