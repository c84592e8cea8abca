"""Who else may call an adapter or a checkpoint. `{checkpoint}` is a name, which may contain slashes, or an id."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from api.deps import AdminDep, ReadSessionDep, SessionDep
from api.json_body import JsonRoute
from api.openai.permissions.schemas import CreatePermissions, PermissionOut, PermissionsQuery
from api.schemas import Deleted, ListPage, errors
from registry.names import permissions

router = APIRouter(prefix="/v1/fine_tuning/checkpoints", route_class=JsonRoute)

CheckpointName = Annotated[str, Path(examples=["ft:osora-tiny:default:ticket-triage:abcdefghjkmnpqrs:ckpt-step-20"])]
PermissionId = Annotated[str, Path(examples=["cp_01k9v4c7rqsabcdefghjkmnpqrs"])]


@router.post("/{checkpoint:path}/permissions", summary="Share a checkpoint", responses=errors(400, 401, 403, 404))
def create_permissions(
    checkpoint: CheckpointName, body: CreatePermissions, session: SessionDep, principal: AdminDep
) -> ListPage[PermissionOut]:
    """Lets other tenants call an adapter or a checkpoint of yours by its name; it is in their list of models.

    They can neither download it, nor go on training from it, nor delete it.
    """
    given = permissions.grant(session, principal, checkpoint, body.project_ids)
    return ListPage[PermissionOut].of([PermissionOut.of(permission) for permission in given], has_more=False)


@router.get("/{checkpoint:path}/permissions", summary="List permissions", responses=errors(400, 401, 403, 404))
def list_permissions(
    checkpoint: CheckpointName,
    session: ReadSessionDep,
    principal: AdminDep,
    query: Annotated[PermissionsQuery, Query()],
) -> ListPage[PermissionOut]:
    """Who may call an adapter or a checkpoint of yours, newest first unless asked otherwise."""
    page = permissions.list(session, principal, checkpoint, **query.for_registry())
    return ListPage[PermissionOut].of([PermissionOut.of(permission) for permission in page.data], page.has_more)


@router.delete(
    "/{checkpoint:path}/permissions/{permission_id}",
    summary="Take a permission back",
    responses=errors(401, 403, 404),
)
def delete_permission(
    checkpoint: CheckpointName, permission_id: PermissionId, session: SessionDep, principal: AdminDep
) -> Deleted:
    """From now on that tenant finds no such model."""
    permissions.revoke(session, principal, checkpoint, permission_id)
    return Deleted(id=permission_id, object="checkpoint.permission")
