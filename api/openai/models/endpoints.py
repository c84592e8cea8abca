"""Bases and adapters under one roof. `{model}` is a name, which may contain slashes, or an id."""

from typing import Annotated

from fastapi import APIRouter, Path

from api.deps import ReaderDep, ReadSessionDep, RegistryDep, WriterDep
from api.generate.target import resolve_model
from api.openai.models.schemas import ModelList, ModelOut
from api.schemas import Deleted, errors
from registry import adapters
from registry.errors import Forbidden
from registry.names import aliases
from registry.references import AdapterRef, Target, delete

router = APIRouter(prefix="/v1/models")

ModelName = Annotated[str, Path(examples=["osora-tiny", "ft:osora-tiny:default:ticket-triage:abcdefghjkmnpqrs"])]


@router.get("", summary="List models", responses=errors(401, 403))
def list_models(session: ReadSessionDep, principal: ReaderDep, registry: RegistryDep) -> ModelList:
    """The bases on offer, the tenant's aliases by name, and its adapters, newest first.

    Checkpoints are listed with their jobs.
    """
    bases = [Target(base, None) for base in registry.settings.base_paths]
    named = [ModelOut.of_alias(principal, alias) for alias in aliases.everything(session, principal)]
    trained = [Target(row.base, AdapterRef.of(row)) for row in adapters.everything(session, principal)]
    return ModelList(
        data=[
            *(ModelOut.of(principal, target) for target in bases),
            *named,
            *(ModelOut.of(principal, target) for target in trained),
        ]
    )


@router.get("/{model:path}", summary="Get a model", responses=errors(401, 403, 404))
def get_model(model: ModelName, session: ReadSessionDep, principal: ReaderDep, registry: RegistryDep) -> ModelOut:
    """A base, an adapter, a job's checkpoint, or an alias under its own name."""
    target = resolve_model(registry, principal, model, key=b"")
    if target.alias is not None:
        return ModelOut.of_alias(principal, aliases.get(session, principal, target.alias))
    return ModelOut.of(principal, target)


@router.delete("/{model:path}", summary="Delete a model", responses=errors(401, 403, 404, 409))
def delete_model(model: ModelName, registry: RegistryDep, principal: WriterDep) -> Deleted:
    """Deletes an adapter, or a checkpoint of a job that has ended, for good. Bases stay.

    Of an alias only the name goes; what it stands for stays.
    """
    target = resolve_model(registry, principal, model, key=b"")
    if target.alias is not None:
        with registry.transaction() as session:
            aliases.remove(session, principal, target.alias)
        return Deleted(id=model, object="model")
    if target.adapter is None:
        raise Forbidden(
            f"{model!r} is a base: it belongs to the service and cannot be deleted",
            param="model",
            code="base_not_deletable",
        )
    delete(registry, principal, model)
    return Deleted(id=model, object="model")
