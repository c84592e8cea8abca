"""The jobs."""

from nicegui import ui

from console.layout import empty, heading
from console.view import View, page


@page("/jobs", "Jobs", nav=10, icon="list_alt")
async def show(view: View) -> None:
    """The list."""
    heading("Jobs")
    jobs = [job async for job in view.osora.jobs.list(100)]
    if not jobs:
        empty("No jobs yet. Drop a file of examples, and watch a model learn from it.", ("New job", "/jobs/new"))
    for job in jobs:
        ui.link(job["id"], f"/jobs/{job['id']}")
