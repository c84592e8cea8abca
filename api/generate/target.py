"""What a request names, resolved: the base and the adapter."""

from sqlalchemy.orm import Session

from api.generate.schemas import GenerateRequest
from registry import jobs
from registry.added_bases import offered
from registry.context import Registry
from registry.errors import InvalidRequest, NotFound
from registry.ids import may_be_ours
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
        _check_offered(session, registry, target, "adapter_id")
    if request.base not in (None, target.base):
        raise InvalidRequest(
            f"adapter {request.adapter_id!r} is on the base {target.base!r}, not {request.base!r}",
            param="base",
            next_action="leave out `base`",
        )
    return target


def resolve_model(registry: Registry, principal: Principal, model: str, key: bytes, *, to_call: bool = True) -> Target:
    """What OpenAI's one field names; of an alias's several models, that for `key` (`api.generate.stickiness`).

    Raises `NotFound`: no base, and no adapter, checkpoint or alias of the tenant's; `to_call`, also an adapter whose
    base was removed.
    """
    if model in registry.settings.base_paths:
        return Target(model, None)
    with registry.reading() as session:
        if not may_be_ours(model) and offered.is_offered(session, registry.settings, model):
            return Target(model, None)
        if model.startswith("ftjob-"):
            raise _job_is_no_adapter(session, principal, model, "model")
        try:
            target = call(session, principal, model, key, param="model")
        except NotFound as error:
            raise NotFound(
                error.message
                if error.code != "adapter_not_found"
                else f"no model {model!r}: call a base ({_listed(session, registry)}), an adapter or an alias of yours",
                param="model",
                code="model_not_found",
                next_action="GET /v1/models lists them; POST /aliases gives one an old name",
            ) from error
        if to_call or target.adapter is None:
            _check_offered(session, registry, target, "model")
    return target


def _check_offered(session: Session, registry: Registry, target: Target, param: str) -> None:
    """Raises `NotFound` for what is on a base that is no longer there, or an alias of one."""
    if offered.is_offered(session, registry.settings, target.base):
        return
    if target.adapter is not None:
        raise NotFound(
            f"{target.adapter.name!r} is on the base {target.base!r}, which is not on offer here any more",
            param=param,
            code="base_not_offered",
            next_action="have whoever runs the service add that base again",
        )
    raise NotFound(
        f"the alias {target.alias!r} stands for the base {target.base!r}, which is not on offer here any more",
        param=param,
        code="model_not_found",
        next_action=f"move the alias {target.alias!r} to another model, or roll it back",
    )


def _base(registry: Registry, named: str | None) -> str:
    configured = registry.settings.base_paths
    if named is None:
        return next(iter(configured))
    if named in configured:
        return named
    with registry.reading() as session:
        if offered.is_offered(session, registry.settings, named):
            return named
        raise NotFound(
            f"no base {named!r}",
            param="base",
            code="base_not_found",
            next_action=f"choose one of {_listed(session, registry)}",
        )


def _listed(session: Session, registry: Registry) -> str:
    return ", ".join(offered.paths(session, registry.settings))


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
