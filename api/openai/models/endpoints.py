"""Bases and adapters under one roof. `{model}` is a name, which may contain slashes, or an id."""

from typing import Annotated

from fastapi import APIRouter, Path

from api.deps import ReaderDep, ReadSessionDep, RegistryDep, WriterDep
from api.generate.target import Target, resolve_model
from api.openai.models.schemas import ModelList, ModelOut
from api.schemas import Deleted, errors
from registry import adapters
from registry.errors import Forbidden
from registry.references import AdapterRef, delete

router = APIRouter(prefix="/v1/models")

ModelName = Annotated[str, Path(examples=["osora-tiny", "ft:osora-tiny:default:ticket-triage:abcdefghjkmnpqrs"])]


@router.get("", summary="List models", responses=errors(401, 403))
def list_models(session: ReadSessionDep, principal: ReaderDep, registry: RegistryDep) -> ModelList:
    """The bases on offer, then the tenant's adapters, newest first. Checkpoints are listed with their jobs."""
    targets = [Target(base, None) for base in registry.settings.base_paths]
    trained = adapters.everything(session, principal)
    targets += [Target(adapter.base, AdapterRef.of(adapter)) for adapter in trained]
    return ModelList(data=[ModelOut.of(principal, target) for target in targets])


@router.get("/{model:path}", summary="Get a model", responses=errors(401, 403, 404))
def get_model(model: ModelName, principal: ReaderDep, registry: RegistryDep) -> ModelOut:
    """A base, an adapter or a job's checkpoint."""
    return ModelOut.of(principal, resolve_model(registry, principal, model))


@router.delete("/{model:path}", summary="Delete a model", responses=errors(401, 403, 404, 409))
def delete_model(model: ModelName, registry: RegistryDep, principal: WriterDep) -> Deleted:
    """Deletes an adapter, or a checkpoint of a job that has ended, for good. Bases stay."""
    target = resolve_model(registry, principal, model)
    if target.adapter is None:
        raise Forbidden(
            f"{model!r} is a base: it belongs to the service and cannot be deleted",
            param="model",
            code="base_not_deletable",
        )
    delete(registry, principal, model)
    return Deleted(id=model, object="model")
