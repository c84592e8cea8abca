"""Permissions as OpenAI shapes them; its projects are our tenants."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from api.schemas import AtMost, Name, QueryModel, RequestModel
from registry.names.tables import Permission

_PROJECT = "tenant-01k9v2m4x7abcdefghjkmnpqrs"


class CreatePermissions(RequestModel):
    """Who is to get one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"project_ids": [_PROJECT]}]})

    project_ids: Annotated[
        list[Name],
        Field(min_length=1, description="Ids of tenants, `tenant-…`: an admin reads its own in GET /keys."),
        AtMost(100),
    ]


class PermissionsQuery(QueryModel):
    """Which permissions."""

    after: Annotated[Name | None, Field(description="Id of the last permission of the page before.")] = None
    limit: Annotated[int, Field(ge=1, le=100, description="Permissions on a page.")] = 10
    order: Annotated[Literal["ascending", "descending"], Field(description="By time of creation.")] = "descending"
    project_id: Annotated[Name | None, Field(description="Only that of this tenant.")] = None

    def for_registry(self) -> dict[str, Any]:
        """The query with the registry's words for the orders."""
        return {**self.model_dump(), "order": "asc" if self.order == "ascending" else "desc"}


class PermissionOut(BaseModel):
    """That a tenant may call an adapter or a checkpoint."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "cp_01k9v4c7rqsabcdefghjkmnpqrs",
                    "object": "checkpoint.permission",
                    "created_at": 1762300420,
                    "project_id": _PROJECT,
                }
            ]
        }
    )

    id: str
    object: Literal["checkpoint.permission"] = "checkpoint.permission"
    created_at: int
    project_id: Annotated[str, Field(description="The tenant that may call it.")]

    @classmethod
    def of(cls, permission: Permission) -> Self:
        """The permission's row as a client sees it."""
        return cls(id=permission.id, created_at=permission.created_at, project_id=permission.project_id)
