"""A browser that comes back sees what there is now, however much it has missed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from nicegui import Client, core, ui
from nicegui.page import page

from console import outbox

TAB = "tab"


class Wire:
    """What the framework sends its browsers by; what it sends here is `heard`, unless the line is dead."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[Any, Any]]] = []
        self.lost = 0
        self.is_dead = False
        self.eio = SimpleNamespace(ping_interval=10, ping_timeout=10)

    async def emit(self, kind: str, data: dict[Any, Any], room: str) -> None:
        if self.is_dead:
            self.lost += 1
        else:
            self.heard.append((kind, dict(data)))

    def shown(self) -> dict[Any, Any]:
        """The elements of a page that has taken all updates, one after another."""
        found: dict[Any, Any] = {}
        for kind, data in self.heard:
            if kind == "update":
                found |= {name: element for name, element in data.items() if name != "_id"}
        return {name: element for name, element in found.items() if element is not None}


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not is_so():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def opened(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Client, Wire]]:
    """A page whose browser is there."""
    wire = Wire()
    monkeypatch.setattr(core, "sio", wire, raising=False)
    monkeypatch.setattr(core, "loop", asyncio.get_running_loop())
    monkeypatch.setattr(core.app.config, "reconnect_timeout", 60.0, raising=False)
    monkeypatch.setattr(core.app.config, "message_history_length", 1000, raising=False)
    client = Client(page(""), request=None)
    client.tab_id = "tab"
    try:
        yield client, wire
    finally:
        client.outbox.stop()


def come_back(client: Client, wire: Wire, missed: int) -> None:
    wire.is_dead = False
    outbox.catch_up(client.outbox, missed)
    client.tab_id = "tab"


def test_what_changed_while_nobody_listened_is_what_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with opened(monkeypatch) as (client, wire):
            with client:
                step, gone = ui.label("step 1"), ui.label("running")
            await until(lambda: step.id in wire.shown())
            missed = client.outbox.next_message_id
            wire.is_dead = True
            step.text, gone.text = "step 2", "still running"
            with client:
                ui.run_javascript("1")
            await until(lambda: wire.lost == 2)  # nobody knows yet
            client.tab_id = None
            step.text = "step 3"
            gone.delete()
            come_back(client, wire, missed)
            await until(lambda: wire.heard[-1][0] == "run_javascript")
            assert wire.shown()[step.id]["text"] == "step 3"
            assert gone.id not in wire.shown()
            numbers = [data["_id"] for _, data in wire.heard]
            assert numbers == [*range(len(numbers))]  # a browser passes over what it has had

    asyncio.run(run())


def test_a_page_whose_messages_are_not_kept_any_more_is_loaded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with opened(monkeypatch) as (client, wire):
            with client:
                ui.label("step 1")
            await until(lambda: client.outbox.message_history)
            client.outbox.message_history.clear()
            come_back(client, wire, 0)
            await until(lambda: "reload" in str(wire.heard[-1]))

    asyncio.run(run())
