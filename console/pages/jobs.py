"""The jobs: those that run move as one looks at them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from console.layout import button_link, empty, heading
from console.press import press
from console.rows import LongTable, Row, column
from console.view import View, page
from console.words import age, loss, name_of, state
from osora.schemas import ENDED, Event, Job

_COLUMNS = [
    column("state", "State", kind="state"),
    column("name", "Name", kind="link"),
    column("progress", "Progress", kind="progress"),
    column("loss", "Loss", right=True),
    column("base", "Base", wide=True),
    column("tenant", "Tenant", wide=True),
    column("age", "Age", right=True, wide=True),
]
_STATES: dict[str, str] = {
    "": "all states",
    "running": "running",
    "queued": "queued",
    "paused": "paused",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
    "validating_files": "validating",
}
# Each is a connection of its own; who looks at more is shown them as they were when the page was opened.
_MOST_FOLLOWED = 12
_WEEK = 7 * 86_400.0


@page("/jobs", "Jobs", nav=10, icon="list_alt")
async def show(view: View, status: str = "", base: str = "", text: str = "") -> None:
    """The list, newest first, with what is asked for in the address: it can be sent to somebody else."""
    await _JobsPage(view, {"status": status if status in _STATES else "", "base": base, "text": text}).build()


class _JobsPage:
    def __init__(self, view: View, chosen: dict[str, str]) -> None:
        self._view = view
        self._chosen = chosen
        self._table: LongTable[Job]
        self._following: list[asyncio.Task[None]] = []

    async def build(self) -> None:
        with ui.element("div").classes("title-row"):
            heading("Jobs")
            with ui.element("div").classes("row-of"):
                self._again = press("Look again", self._view.does(self._look_again))
                button_link("New job", "/jobs/new")
        self._filters(await _base_names(self._view))
        self._place = ui.element("div").classes("stack")
        await self._look()

    async def _look(self) -> None:
        table = LongTable(self._view, self._matching(), _COLUMNS, self._row, "Jobs, newest first")
        before = [*self._place.default_slot.children]
        with self._place:
            if not await table.show():
                self._say_empty()
        for old in before:  # not sooner: where the API refuses, they stay
            self._place.remove(old)
        self._table = table
        self._follow()

    async def _look_again(self) -> None:
        """Of jobs that were made elsewhere no stream tells, and a page that is idle does not ask."""
        self._again.disable()  # two looks at a time would be two tables
        try:
            await self._look()
        finally:
            self._again.enable()

    def _filters(self, bases: list[str]) -> None:
        with ui.element("div").classes("filters").props('role=search aria-label="Which jobs"'):
            self._select("status", "State", _STATES)
            self._select("base", "Base", {"": "all bases"} | {name: name for name in bases})
            ui.input("Name or id", value=self._chosen["text"]).props(
                'outlined dense debounce=400 type=search aria-label="Name or id"'
            ).on_value_change(self._view.does(self._typed))

    def _select(self, name: str, label: str, options: dict[str, str]) -> None:
        async def choose(event: Any) -> None:
            self._choose(name, event.value or "")

        value = self._chosen[name] if self._chosen[name] in options else ""
        ui.select(options, label=label, value=value).props("outlined dense").on_value_change(self._view.does(choose))

    async def _typed(self, event: Any) -> None:
        self._choose("text", (event.value or "").strip())

    def _choose(self, name: str, value: str) -> None:
        self._chosen[name] = value
        asked = {key: said for key, said in self._chosen.items() if said}
        ui.navigate.to("/jobs" + (f"?{urlencode(asked)}" if asked else ""))

    async def _matching(self) -> AsyncIterator[Job]:
        status: Any = self._chosen["status"] or None
        async for job in self._view.osora.jobs.list(status=status):
            if self._is_meant(job):
                yield job

    def _is_meant(self, job: Job) -> bool:
        base, text = self._chosen["base"], self._chosen["text"].casefold()
        words = f"{job['id']} {job.get('user_provided_suffix') or ''}".casefold()
        return (not base or job["model"] == base) and text in words

    def _say_empty(self) -> None:
        if any(self._chosen.values()):
            empty("No job is like that.", ("Show all jobs", "/jobs"))
        else:
            empty("No jobs yet. Drop a file of examples, and watch a model learn from it.", ("New job", "/jobs/new"))

    def _row(self, job: Job) -> Row:
        details = job.get("osora") or {}
        step, total = details.get("step") or 0, details.get("total_steps")
        return {
            "id": job["id"],
            "href": f"/jobs/{job['id']}",
            "name": name_of(job),
            "state": state(job),
            "state_class": job["status"],
            "progress": _progress(step, total) if total else "",
            "percent": round(100 * step / total, 1) if total else 0,
            "loss": loss(_loss(job)),
            "base": job["model"],
            "tenant": job.get("organization_id", ""),
            "age": age(job["created_at"]),
            "status": job["status"],
        }

    def _follow(self) -> None:
        live = [job_id for job_id, row in self._table.rows.items() if row["status"] not in ENDED]
        for following in self._following:
            following.cancel()
        self._following = [self._view.background(self._follow_one(job_id)) for job_id in live[:_MOST_FOLLOWED]]

    async def _follow_one(self, job_id: str) -> None:
        """From what was newest when the page was made: of the past, the list has told all that it shows."""
        newest = [event async for event in self._view.osora.jobs.list_events(job_id, 1)]
        after = newest[0]["id"] if newest else None
        async for event in self._view.osora.jobs.events(job_id, after, _WEEK):
            await self._happened(job_id, event)
        self._table.update(self._row(await self._view.osora.jobs.get(job_id)))

    async def _happened(self, job_id: str, event: Event) -> None:
        data = event.get("data") or {}
        if event.get("type") == "metrics" and data.get("train_loss") is not None:
            step, total = data["step"], data["total_steps"]
            told = {"progress": _progress(step, total), "percent": round(100 * step / total, 1)}
            self._table.update({"id": job_id, **told, "loss": loss(data["train_loss"])})
        elif event.get("type") != "metrics" and not data:
            self._table.update(self._row(await self._view.osora.jobs.get(job_id)))


async def _base_names(view: View) -> list[str]:
    return [base["name"] for base in await view.osora.bases()]


def _progress(step: int, total: int) -> str:
    return f"{step:,} / {total:,}"


def _loss(job: Job) -> float | None:
    details = job.get("osora") or {}
    valid = details.get("valid_loss")
    return details.get("train_loss") if valid is None else valid
