"""What was used."""

from collections.abc import Sequence
from datetime import date

import httpx

from osora.schemas import StoredBytes, UsageRow
from osora.sdk.call import Call, given
from osora.sdk.endpoint import Mode, Resource, iterated, method
from osora.sdk.paging import Listing


class UsageReports(Resource[Mode]):
    """Your tenant's usage; with an operator's key, every tenant's, or that of the `tenant` that is named."""

    @iterated
    def list(
        self,
        *,
        since: date | str | None = None,
        until: date | str | None = None,
        group_by: Sequence[str] | None = None,
        tenant: str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Listing[UsageRow]:
        """Sums, the oldest day first.

        `since` and `until`: the first and the last day (in UTC, such as `2026-11-27`); default: a month until today.
        `group_by`: of day, tenant, key, model and kind; default: day.
        """
        return Listing("/usage", limit, after, _asked(since, until, group_by, tenant), page=1000)

    @method
    def csv(
        self,
        *,
        since: date | str | None = None,
        until: date | str | None = None,
        group_by: Sequence[str] | None = None,
        tenant: str | None = None,
    ) -> Call[str]:
        """The same as a CSV file, all rows at once."""
        params = {**_asked(since, until, group_by, tenant), "format": "csv"}
        return Call("GET", "/usage", parse=_text, params=params)

    @method
    def storage(self, tenant: str | None = None) -> Call[StoredBytes]:
        """The bytes that are stored now."""
        return Call("GET", "/usage/storage", params=given(tenant=tenant))


def _asked(
    since: date | str | None, until: date | str | None, group_by: Sequence[str] | None, tenant: str | None
) -> dict[str, object]:
    days = {name: None if day is None else str(day) for name, day in (("since", since), ("until", until))}
    return given(**days, group_by=[*group_by] if group_by else None, tenant=tenant)


def _text(response: httpx.Response) -> str:
    return response.text
