"""The installation now: for its operator all of it, for others whether it is up."""

from typing import Any

from nicegui import ui

from console.layout import heading, panel
from console.press import press
from console.tables import plain_table
from console.usage import short
from console.view import View, page
from osora.errors import OsoraAPIError
from osora.schemas import Readiness, System

_FOLLOW_SECONDS = 3.0
_PARTS = {"database": "Database", "store": "Object store", "disk": "Disk", "inference": "Inference", "broker": "Broker"}


@page("/system", "System", nav=60, icon="dns")
async def show(view: View) -> None:
    """Asks for nothing by itself, unless it is told to follow."""

    async def load() -> None:
        system, ready = await _system(view), await view.osora.ready()
        place.clear()
        with place:
            _readiness(ready)
            if isinstance(system, OsoraAPIError):
                with panel("Workers, servers, queue"):
                    ui.label(system.message).classes("muted")
                    if system.next_action:
                        ui.label(f"Next: {system.next_action}").classes("muted")
            else:
                _show(system)

    with ui.element("div").classes("title-row"):
        heading("System")
        with ui.element("div").classes("row-of"):
            following = ui.switch("Follow", value=False)
            following.tooltip(f"Looks again every {_FOLLOW_SECONDS:.0f} s, as long as this is on")
            press("Look again", view.does(load))
    place = ui.element("div").classes("stack")
    timer = ui.timer(_FOLLOW_SECONDS, view.does(load), active=False)
    following.on_value_change(lambda event: timer.activate() if event.value else timer.deactivate())
    await load()


async def _system(view: View) -> System | OsoraAPIError:
    try:
        return await view.osora.system()
    except OsoraAPIError as error:
        if error.status != 403:
            raise
        return error


def _readiness(ready: Readiness) -> None:
    with panel("Ready" if ready["ready"] else "Not ready"), ui.element("ul").classes("checks"):
        for name, check in ready["checks"].items():
            with ui.element("li"):
                state = "succeeded" if check["ok"] else "failed" if check.get("needed") else "paused"
                ui.label("up" if check["ok"] else "down").classes(f"state {state}")
                ui.label(_PARTS.get(name, name)).classes("strong")
                ui.label(str(check.get("detail", ""))).classes("muted")


def _show(system: System) -> None:
    loads = [load for server in system["inference"] for load in server["bases"]]
    crews, queue = system["workers"], system["queue"]
    with ui.element("div").classes("figures"):
        _figure("Tokens written now", f"{sum(load['tokens_per_second'] for load in loads):,.1f} /s")
        live = [crew for crew in crews if crew["live"]]
        _figure("Tokens trained on now", f"{sum(crew['tokens_per_second'] for crew in live):,.0f} /s")
        _figure("Jobs that run", short(sum(base["running"] for base in queue)))
        _figure("Jobs that wait", short(sum(base["queued"] + base["validating_files"] for base in queue)))
        _figure("Requests that run", short(sum(load["running"] for load in loads)))
        _figure("Requests that wait", short(sum(load["waiting"] for load in loads)))
    with ui.element("div").classes("columns"):
        for server in system["inference"]:
            _server(server)
    with ui.element("div").classes("columns"):
        _workers(crews)
        _queue(queue)


def _server(server: dict[str, Any]) -> None:
    with panel(f"Inference server {server['number']}"):
        if not server["answers"]:
            ui.label("It does not answer. GET /ready and its log say more.").classes("problem-message")
        for load in server["bases"]:
            heading(load["base"], 3)
            _room("Requests", load["running"], load["rows"], f"{load['waiting']} wait")
            _room("Adapters in the bank", load["adapters"], load["adapter_slots"], "")
            _room("Ranks of plain LoRAs", load["lora_ranks"], load["lora_capacity"], "")
            ui.label(f"{load['tokens_per_second']:,.1f} tokens a second").classes("small muted")


def _room(name: str, taken: int, of: int, more: str) -> None:
    with ui.element("div").classes("share"):
        ui.label(name)
        ui.label(f"{taken:,} of {of:,}{f', {more}' if more else ''}").classes("muted small number")
        bar = ui.element("div").classes("share-bar").style(f"--share: {taken / of if of else 0:.4f}")
        bar.props["role"] = "img"
        bar.props["aria-label"] = f"{name}: {taken} of {of}"


def _workers(crews: list[dict[str, Any]]) -> None:
    with panel("Workers"):
        if not crews:
            ui.label("No worker has been heard of for a day. Jobs wait until one is started.").classes("muted")
        for crew in crews:
            _worker(crew)


def _worker(crew: dict[str, Any]) -> None:
    jobs, bases = crew["jobs"], ", ".join(crew["bases"])
    with ui.element("div").classes("crew"):
        ui.label("live" if crew["live"] else "silent").classes(f"state {'succeeded' if crew['live'] else 'failed'}")
        ui.label(crew["id"]).classes("mono small wrap")
        told = f"{jobs} job{'' if jobs == 1 else 's'}, {crew['slots']} slots for each of {bases}"
        ui.label(told).classes("muted small")


def _queue(queue: list[dict[str, Any]]) -> None:
    with panel("Queue"):
        if not queue:
            ui.label("No job waits or runs.").classes("muted")
            return
        names = ("base", "validating_files", "queued", "running", "paused")
        rows = [[str(base[name]) for name in names] for base in queue]
        plain_table(("Base", "Checked", "Queued", "Running", "Paused"), rows, "Queue", right=(1, 2, 3, 4))


def _figure(name: str, value: str) -> None:
    with ui.element("div").classes("figure"):
        ui.label(name).classes("figure-name")
        ui.label(value).classes("figure-value")
