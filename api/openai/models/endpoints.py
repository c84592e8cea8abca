"""Bases, adapters and aliases under one roof. `{model}` is a name, which may contain slashes, or an id."""

from typing import Annotated

from fastapi import APIRouter, Path

from api.deps import ReaderDep, ReadSessionDep, RegistryDep, ServicesDep, TrainerDep
from api.generate.target import resolve_model
from api.openai.models.schemas import ModelList, ModelOut
from api.routes import ThreadRoute
from api.schemas import Deleted, errors
from registry import adapters, tenants
from registry.added_bases import offered
from registry.errors import Forbidden
from registry.expiry import expiries
from registry.names import aliases, permissions
from registry.references import AdapterRef, delete

router = APIRouter(prefix="/v1/models", route_class=ThreadRoute)

ModelName = Annotated[str, Path(examples=["osora-tiny", "ft:osora-tiny:default:ticket-triage:abcdefghjkmnpqrs"])]


@router.get("", summary="List models", responses=errors(401, 403))
def list_models(session: ReadSessionDep, principal: ReaderDep, registry: RegistryDep) -> ModelList:
    """The bases on offer, the tenant's aliases by name, its adapters, newest first, and what others share with it.

    A tenant's own checkpoints are listed with their jobs.
    """
    own = [(AdapterRef.of(row), principal.tenant_name) for row in adapters.everything(session, principal)]
    trained = [*own, *permissions.shared_with(session, principal)]
    ends = expiries(session, registry.settings, [ref for ref, _ in trained])
    bases = [ModelOut.of_base(base) for base in offered.paths(session, registry.settings)]
    named = [ModelOut.of_alias(alias, principal.tenant_name) for alias in aliases.everything(session, principal)]
    return ModelList(
        data=[*bases, *named, *(ModelOut.of_adapter(ref, owner, ends.get(ref.id)) for ref, owner in trained)]
    )


@router.get("/{model:path}", summary="Get a model", responses=errors(401, 403, 404))
def get_model(model: ModelName, session: ReadSessionDep, principal: ReaderDep, registry: RegistryDep) -> ModelOut:
    """A base, an adapter, a checkpoint, or an alias under its own name."""
    target = resolve_model(registry, principal, model, key=b"", to_call=False)
    if target.alias is not None:
        return ModelOut.of_alias(aliases.get(session, principal, target.alias), principal.tenant_name)
    if target.adapter is None:
        return ModelOut.of_base(target.base)
    ends = expiries(session, registry.settings, [target.adapter])
    owner = tenants.name_of(session, target.adapter.tenant_id)
    return ModelOut.of_adapter(target.adapter, owner, ends.get(target.adapter.id))


@router.delete("/{model:path}", summary="Delete a model", responses=errors(401, 403, 404, 409))
def delete_model(model: ModelName, services: ServicesDep, principal: TrainerDep) -> Deleted:
    """Deletes an adapter, or a checkpoint of a job that has ended, for good. Bases stay, and what others share.

    Of an alias only the name goes; what it stands for stays.
    """
    registry = services.registry
    target = resolve_model(registry, principal, model, key=b"", to_call=False)
    if target.alias is not None:
        with registry.transaction() as session:
            aliases.remove(session, principal, target.alias)
    elif target.adapter is None:
        raise Forbidden(
            f"{model!r} is a base: it belongs to the service and cannot be deleted",
            param="model",
            code="base_not_deletable",
        )
    elif target.adapter.tenant_id != principal.tenant_id:
        raise Forbidden(
            f"{model!r} is another tenant's, which shares it with yours: only its owner can delete it",
            param="model",
            code="model_not_yours",
        )
    else:
        delete(registry, principal, model)
        services.forgetting.soon()
    return Deleted(id=model, object="model")
