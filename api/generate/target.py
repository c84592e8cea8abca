"""What a request names, resolved: the base and the adapter."""

from sqlalchemy.orm import Session

from api.generate.schemas import GenerateRequest
from registry import jobs
from registry.context import Registry
from registry.errors import InvalidRequest, NotFound
from registry.references import Target, call
from registry.tenants import Principal


def resolve(registry: Registry, principal: Principal, request: GenerateRequest, key: bytes) -> Target:
    """The request's target; of an alias's several, that for `key` (`api.generate.stickiness`).

    Raises:
        NotFound: no such adapter, checkpoint or alias of the tenant's, or no such base.
        InvalidRequest: the adapter is not one of the base that was named.
    """
    if request.adapter_id is None:
        return Target(_base(registry, request.base), None)
    with registry.reading() as session:
        if request.adapter_id.startswith("ftjob-"):
            raise _job_is_no_adapter(session, principal, request.adapter_id, "adapter_id")
        target = call(session, principal, request.adapter_id, key)
    _check_offered(registry, target, "adapter_id")
    if request.base not in (None, target.base):
        raise InvalidRequest(
            f"adapter {request.adapter_id!r} is on the base {target.base!r}, not {request.base!r}",
            param="base",
            next_action="leave out `base`",
        )
    return target


def resolve_model(registry: Registry, principal: Principal, model: str, key: bytes) -> Target:
    """What OpenAI's one field names; of an alias's several models, that for `key` (`api.generate.stickiness`).

    Raises `NotFound`: no base, and no adapter, checkpoint or alias of the tenant's.
    """
    offered = registry.settings.base_paths
    if model in offered:
        return Target(model, None)
    with registry.reading() as session:
        if model.startswith("ftjob-"):
            raise _job_is_no_adapter(session, principal, model, "model")
        try:
            target = call(session, principal, model, key, param="model")
        except NotFound as error:
            raise NotFound(
                error.message
                if error.code != "adapter_not_found"
                else f"no model {model!r}: call a base ({', '.join(offered)}), an adapter or an alias of yours",
                param="model",
                code="model_not_found",
                next_action="GET /v1/models lists them; POST /aliases gives one an old name",
            ) from error
    _check_offered(registry, target, "model")
    return target


def _check_offered(registry: Registry, target: Target, param: str) -> None:
    """Raises `NotFound` for an alias of a base that is no longer there; a base that is asked for by name is."""
    if target.adapter is None and target.base not in registry.settings.base_paths:
        raise NotFound(
            f"the alias {target.alias!r} stands for the base {target.base!r}, which is not on offer here any more",
            param=param,
            code="model_not_found",
            next_action=f"move the alias {target.alias!r} to another model, or roll it back",
        )


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
