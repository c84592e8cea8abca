"""What was used, by whom, and how much is left."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from console.day_bars import bars
from console.layout import button_link, empty, heading, panel
from console.rows import Table, column
from console.tables import facts
from console.usage import Days, Quota, by_day, by_key, quotas, short
from console.view import View, page
from console.words import duration, human_bytes
from osora.errors import OsoraAPIError
from osora.schemas import UsageRow

_RANGES = (7, 30, 90)
_KEY_COLUMNS = [
    column("key", "Key"),
    column("tenant", "Tenant", wide=True),
    column("requests", "Generations", right=True, wide=True),
    column("prompt_tokens", "Read", right=True),
    column("completion_tokens", "Written", right=True),
    column("trained_tokens", "Trained on", right=True),
    column("compute_seconds", "Compute", right=True, wide=True),
]


@page("/usage", "Usage", nav=50, icon="insights")
async def show(view: View, days: int = 30) -> None:
    """Of the last so many days."""
    days = days if days in _RANGES else 30
    until = datetime.now(UTC).date()
    since = until - timedelta(days=days - 1)
    osora = view.osora
    rows = [row async for row in osora.usage.list(since=since, until=until, group_by=("day", "tenant", "key"))]
    with ui.element("div").classes("title-row"):
        heading("Usage")
        with ui.element("div").classes("row-of"):
            _ranges(days)
            query = urlencode({"since": since, "until": until, "group_by": ("day", "key", "model")}, doseq=True)
            button_link("CSV", f"/downloads/usage.csv?{query}", primary=False)
    summed = by_day(rows, until, days)
    if summed.is_empty:
        empty(f"Nothing was used in these {days} days. Ask a model something, or train one.",
              ("Open the playground", "/playground"))  # fmt: skip
    else:
        _totals(summed)
        with ui.element("div").classes("columns"):
            _charts(summed)
        _keys(rows)
    with ui.element("div").classes("columns"):
        await _quotas(view)
        await _storage(view)


def _ranges(chosen: int) -> None:
    with ui.element("nav").classes("row-of ranges").props('aria-label="Days"'):
        for days in _RANGES:
            link = button_link(f"{days} days", f"/usage?days={days}", primary=days == chosen)
            if days == chosen:
                link.props("aria-current=page")


def _totals(summed: Days) -> None:
    with ui.element("div").classes("figures"):
        for name, text in (
            ("Tokens read", short(summed.total("prompt_tokens"))),
            ("Tokens written", short(summed.total("completion_tokens"))),
            ("Tokens trained on", short(summed.total("trained_tokens"))),
            ("Generations", short(summed.total("requests"))),
            ("Compute of training", duration(summed.total("compute_seconds"))),
        ):
            with ui.element("div").classes("figure"):
                ui.label(name).classes("figure-name")
                ui.label(text).classes("figure-value")


def _charts(summed: Days) -> None:
    tokens = {"read": "prompt_tokens", "written": "completion_tokens", "trained on": "trained_tokens"}
    with panel("Tokens by day"):
        bars("Tokens by day", summed.days, {name: summed.sums[count] for name, count in tokens.items()})
    with panel("Compute of training by day, in seconds"):
        bars("Seconds of compute by day", summed.days, {"seconds": summed.sums["compute_seconds"]}, colour=4)


def _keys(rows: list[UsageRow]) -> None:
    found = by_key(rows)
    several = len({row["tenant"] for row in found}) > 1
    columns = [column for column in _KEY_COLUMNS if several or column["name"] != "tenant"]
    with panel("By key"):
        Table([{**row, **_written(row)} for row in found], columns, "Usage by key, the busiest first").classes("short")


def _written(row: dict[str, Any]) -> dict[str, str]:
    counts = ("requests", "prompt_tokens", "completion_tokens", "trained_tokens")
    return {**{name: short(row[name]) for name in counts}, "compute_seconds": duration(row["compute_seconds"])}


async def _quotas(view: View) -> None:
    key = await view.osora.keys.current()
    limits = await view.osora.limits.of_tenant(key["tenant_id"])
    with panel(f"Quotas of {key['tenant']}"):
        for quota in quotas(limits):
            _quota(quota)


def _quota(quota: Quota) -> None:
    with ui.element("div").classes("share"):
        ui.label(quota.label)
        ui.label(quota.text).classes("muted small number")
        if quota.share is not None:
            bar = ui.element("div").classes(f"share-bar {quota.level}").style(f"--share: {quota.share:.4f}")
            bar.props["role"] = "img"
            bar.props["aria-label"] = f"{quota.label}: {quota.share:.0%} taken"


async def _storage(view: View) -> None:
    try:
        stored = await view.osora.usage.storage()
    except OsoraAPIError as error:
        if error.status != 403:
            raise
        return
    names = {"files": "Files", "uploads": "Unfinished uploads", "adapters": "Adapters", "checkpoints": "Checkpoints"}
    told: dict[str, Any] = {**stored}
    with panel("Stored now", "one-by-one"):
        facts([(label, human_bytes(told.get(name, 0))) for name, label in {**names, "total": "In all"}.items()])
