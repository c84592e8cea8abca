"""One job, as it goes."""

import asyncio
from functools import partial
from pathlib import Path

from nicegui import ui

from console.history import History
from console.job_parts import Curves, Figures, Happenings, Samples, about, attempt_table, checkpoint_table, try_it
from console.layout import button_link, heading, panel
from console.press import press, question
from console.reading import Reading
from console.view import View, page
from console.words import name_of, state
from osora.errors import OsoraError
from osora.schemas import ENDED, Job, JobError

# So often at most is a page painted, however fast a job steps.
_PAINT_SECONDS = 0.4
# What could not be read is asked for again after so long.
_AGAIN_SECONDS = 3.0
# A page that stays open over night finds the service again in the morning.
_PATIENCE_SECONDS = 7 * 86_400.0
_MOST_CHECKPOINTS = 50


@page("/jobs/{job_id}", "Job")
async def show(view: View, job_id: str) -> None:
    """Everything of a job, and what can be done with it."""
    await _JobPage(view, await view.osora.jobs.get(job_id)).build()


class _JobPage:
    def __init__(self, view: View, job: Job) -> None:
        self._view, self._job = view, job
        self._history = History()
        self._shown_error: JobError | None = None
        self._is_stale = False
        self._news = asyncio.Event()
        self._reading = Reading(self._read, self._lost)

    async def build(self) -> None:
        ui.page_title(f"{name_of(self._job)} · Osora")
        self._title()
        self._problem = ui.element("div").classes("stack")
        self._dialog = ui.dialog()
        self._alert = ui.element("div").props("role=status")
        self._figures = Figures()
        with ui.element("div").classes("split"):
            with ui.element("div").classes("stack"):
                self._curves = Curves()
                self._samples = Samples()
                self._attempts = ui.element("div").classes("stack")
                self._happenings = Happenings()
            self._about = ui.element("div").classes("stack side")
        await self._reading.now()
        self._paint()
        self._view.background(self._follow())
        self._view.background(self._keep_painting())

    async def _follow(self) -> None:
        """From the first event on: what a page does not show after a reload, it would have lost."""
        async for event in self._view.osora.jobs.events(self._job["id"], None, _PATIENCE_SECONDS, self._broke_off):
            self._found_again()
            self._is_stale |= self._history.add(event)
            self._news.set()
        self._is_stale = True
        self._news.set()

    async def _keep_painting(self) -> None:
        while True:
            await self._news.wait()
            await asyncio.sleep(_PAINT_SECONDS)  # what else comes in this time is painted with it
            self._news.clear()
            if self._is_stale:
                await self._read_again()
            self._paint()

    async def _read_again(self) -> None:
        self._is_stale = False
        if await self._reading.patiently():
            self._found_again()
        else:
            self._is_stale = True
            asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._news.set)

    async def _read(self) -> None:
        """What no event has: the job itself, and its checkpoints."""
        osora, job_id = self._view.osora.jobs, self._job["id"]
        self._job = await osora.get(job_id)
        checkpoints = [checkpoint async for checkpoint in osora.checkpoints(job_id, _MOST_CHECKPOINTS)]
        await self._read_family()
        self._paint_top()
        self._about.clear()
        with self._about:
            checkpoint_table(checkpoints)
            self._downloads()
            about(self._job)
        self._attempts.clear()
        with self._attempts:
            attempt_table((self._job.get("osora") or {}).get("attempts") or [])

    def _paint_top(self) -> None:
        """What it is and what can be done. The buttons stay what they are: somebody may be about to press one."""
        job, details = self._job, self._job.get("osora") or {}
        status, requested, model = job["status"], details.get("requested"), job.get("fine_tuned_model")
        self._state.set_text(state(job))
        self._state.classes(replace=f"state {status}")
        self._try.set_visibility(bool(status == "succeeded" and details.get("adapter_id") and model))
        self._try.props["href"] = try_it(model or "")
        self._resume_button.set_visibility(status == "paused")
        self._pause_button.set_visibility(status in ("running", "queued") and not requested)
        self._cancel_button.set_visibility(status not in ENDED and requested != "cancel")
        self._paint_problem()

    async def _read_family(self) -> None:
        """Of a sweep that has ended, the curves of all its members: the second of its result files."""
        files = self._job.get("result_files") or []
        if len(files) > 1 and not self._history.is_family_whole:
            content = await self._view.osora.files.content(files[1])
            self._history.add_family(content.decode())

    def _paint(self) -> None:
        self._figures.paint(self._job, self._history)
        self._curves.paint(self._job, self._history)
        self._samples.paint(self._history)
        self._happenings.paint(self._history.messages)

    def _title(self) -> None:
        with ui.element("div").classes("title-row"):
            with ui.element("div").classes("row-of"):
                heading(name_of(self._job))
                self._state = ui.label().classes("state").props("role=status")
            with ui.element("div").classes("row-of"):
                self._try = button_link("Try it", "")
                self._resume_button = press("Resume", self._view.does(self._resume), "primary")
                self._pause_button = press("Pause", self._view.does(self._pause))
                self._cancel_button = press("Cancel", self._ask_to_cancel, "danger")

    async def _pause(self) -> None:
        await self._view.osora.jobs.pause(self._job["id"])
        await self._reading.now()

    async def _resume(self) -> None:
        await self._view.osora.jobs.resume(self._job["id"])
        await self._reading.now()

    def _ask_to_cancel(self) -> None:
        with question(f"Cancel {name_of(self._job)}?", self._dialog):
            ui.label("It ends for good. Its checkpoints stay for a while, and can be called.")
            with ui.element("div").classes("row-of end"):
                press("Keep it", self._dialog.close)
                press("Cancel the job", self._view.does(self._cancel), "danger")
        self._dialog.open()

    async def _cancel(self) -> None:
        self._dialog.close()
        await self._view.osora.jobs.cancel(self._job["id"])
        await self._reading.now()

    def _paint_problem(self) -> None:
        error = self._job.get("error")
        if error == self._shown_error:
            return
        self._shown_error = error
        self._problem.clear()
        if not error:
            return
        with self._problem, ui.element("section").classes("panel problem").props("role=alert"):
            ui.label(error["message"]).classes("problem-message")
            if next_action := error.get("next_action"):
                ui.label(f"Next: {next_action}").classes("muted")

    def _downloads(self) -> None:
        files = self._job.get("result_files") or []
        if not files:
            return
        with panel("Downloads"):
            ui.label("The figures of every step, as CSV.").classes("muted")
            with ui.element("div").classes("row-of"):
                for file_id, words in zip(files, ("Metrics", "All members of the sweep"), strict=False):
                    press(words, self._view.does(partial(self._download, file_id)))

    async def _download(self, file_id: str) -> None:
        file = await self._view.osora.files.get(file_id)
        content = await self._view.osora.files.content(file_id)
        ui.download.content(content, Path(file["filename"]).name or f"{file_id}.csv")

    def _broke_off(self, error: OsoraError) -> None:
        """No event tells that the service is there again, if the job is between two: so it is asked."""
        self._lost(error)
        self._is_stale = True
        self._news.set()

    def _lost(self, error: OsoraError) -> None:
        self._alert.clear()
        with self._alert, ui.element("div").classes("panel notice"):
            ui.label(f"{error}. What is shown may be old; trying again.")

    def _found_again(self) -> None:
        if self._alert.default_slot.children:
            self._alert.clear()
