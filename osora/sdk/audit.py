"""The audit log."""

from datetime import datetime

from osora.options import Order
from osora.schemas import AuditRecord
from osora.sdk.call import given
from osora.sdk.endpoint import Mode, Resource, iterated
from osora.sdk.paging import Listing


class Audit(Resource[Mode]):
    """Who did what: an `admin` key reads what concerns its own tenant, an `operator` key everything."""

    @iterated
    def list(
        self,
        limit: int | None = None,
        after: str | None = None,
        *,
        tenant: str | None = None,
        action: str | None = None,
        target: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        order: Order | None = None,
    ) -> Listing[AuditRecord]:
        """Newest first: all records, or at most `limit`.

        `tenant`: name or id. `action`: such as `key.created`, or all of a kind: `key`. `target`: an id, or the name of
        an alias.
        """
        params = given(
            tenant=tenant, action=action, target=target, since=_seconds(since), until=_seconds(until), order=order
        )
        return Listing("/audit", limit, after, params)


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
