"""The audit log. An `admin` key reads what concerns its own tenant, an `operator` key everything."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.audit.schemas import AuditQuery, AuditRecordOut
from api.deps import AdminDep, ReadSessionDep
from api.routes import ThreadRoute
from api.schemas import ListPage, errors
from registry import audit_log

router = APIRouter(prefix="/audit", tags=["audit"], route_class=ThreadRoute)


@router.get("", summary="Read the audit log", responses=errors(400, 401, 403, 404))
def list_audit(
    session: ReadSessionDep, principal: AdminDep, query: Annotated[AuditQuery, Query()]
) -> ListPage[AuditRecordOut]:
    """Who did what, to what, when and from where, newest first unless asked otherwise.

    Your tenant's records; an operator's answer has everybody's.
    """
    page = audit_log.page(session, principal, **query.model_dump())
    return ListPage[AuditRecordOut].of([AuditRecordOut.of(row, principal) for row in page.data], page.has_more)
