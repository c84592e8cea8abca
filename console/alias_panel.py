"""The aliases of an adapter: whom they stand for, by which weights, and how that was before."""

from collections.abc import Awaitable, Callable
from functools import partial

from nicegui import ui

from console.adapter_facts import aliases_of, shares, short_name
from console.choosing import Choice, choice
from console.layout import heading, panel
from console.view import View
from osora.schemas import Adapter, Alias

_MOST_TARGETS = 10
_LARGEST_WEIGHT = 1_000_000


class AliasPanel:
    """Shows them, and lets them be changed."""

    def __init__(self, view: View, adapter: Adapter) -> None:
        self._view = view
        self._adapter = adapter
        self._choice: Choice | None = None

    async def show(self) -> None:
        """Build it here. Raises OsoraError."""
        with panel("Aliases"):
            about = "A name of your own for it. Models may share a name: a canary gets a small part of the requests."
            ui.label(about).classes("small muted")
            self._list = ui.element("div").classes("stack tight")
            button = ui.button("New alias", on_click=self._view.does(self._new)).props("flat no-caps")
            button.classes("button")
        self._dialog = ui.dialog()
        await self._reload()

    async def _reload(self) -> None:
        every = [alias async for alias in self._view.osora.aliases.list()]
        self._list.clear()
        with self._list:
            for alias in aliases_of(every, (self._adapter["name"], self._adapter["id"])):
                self._show_one(alias)

    def _show_one(self, alias: Alias) -> None:
        with ui.element("div").classes("alias"):
            with ui.element("div").classes("title-row"):
                ui.label(alias["name"]).classes("strong wrap")
                with ui.element("div").classes("row-of"):
                    _quiet("Edit", f"Edit {alias['name']}", self._view.does(partial(self._edit, alias)))
                    _quiet("History", f"History of {alias['name']}", self._view.does(partial(self._history, alias)))
                    _quiet("Remove", f"Remove {alias['name']}", self._view.does(partial(self._remove, alias)))
            for name, weight, share in shares(alias["targets"]):
                is_this = name in (self._adapter["name"], self._adapter["id"])
                with ui.element("div").classes("share"):
                    ui.label(f"{short_name(name)}{' (this one)' if is_this else ''}").classes("wrap")
                    ui.label(f"{share} · weight {weight}").classes("muted small number")
                    bar = ui.element("div").classes("share-bar")
                    bar.style(f"--share: {weight / sum(alias['targets'].values()):.4f}")

    async def _new(self) -> None:
        await self._open(None)

    async def _edit(self, alias: Alias) -> None:
        await self._open(alias)

    async def _open(self, alias: Alias | None) -> None:
        """A dialog for a new alias, or for another's targets."""
        if self._choice is None:
            self._choice = await choice(self._view.osora)
        self._dialog.clear()
        with self._dialog, ui.card().classes("question wide"):
            heading(f"Targets of {alias['name']}" if alias else "New alias", 2)
            name = None if alias else ui.input("Name", placeholder="triage").props("outlined dense").classes("w-full")
            targets = Targets(self._options(), dict(alias["targets"]) if alias else {self._adapter["name"]: 100})
            problem = ui.label().classes("problem-message").props("role=alert")
            with ui.element("div").classes("row-of end"):
                ui.button("Leave it", on_click=self._dialog.close).props("flat no-caps").classes("button")
                save = self._view.does(partial(self._save, alias, name, targets, problem))
                ui.button("Save", on_click=save).props("flat no-caps").classes("button primary")
        self._dialog.open()

    async def _save(self, alias: Alias | None, name: ui.input | None, targets: "Targets", problem: ui.label) -> None:
        problem.text = wrong = targets.problem()
        if wrong:
            return
        called = alias["name"] if alias else str(name.value or "").strip() if name else ""
        version = alias["version"] if alias else 0
        # Whoever changed it meanwhile is not overwritten: the API says that it is at another version.
        await self._view.osora.aliases.set(called, targets.weights(), expected_version=version)
        self._dialog.close()
        await self._reload()

    async def _history(self, alias: Alias) -> None:
        versions = await self._view.osora.aliases.history(alias["name"])
        self._dialog.clear()
        with self._dialog, ui.card().classes("question wide"):
            heading(f"History of {alias['name']}", 2)
            for version in versions:
                with ui.element("div").classes("version"):
                    told = ", ".join(f"{short_name(name)} {share}" for name, _, share in shares(version["targets"]))
                    ui.label(f"{version['version']}: {told or 'deleted'}").classes("wrap")
                    ui.label(f"by {version.get('key_name', '')}").classes("small muted")
                    if version["version"] != alias["version"] and version["targets"]:
                        back = self._view.does(partial(self._roll_back, alias, version["version"]))
                        _quiet("Bring back", f"Bring back version {version['version']}", back)
            with ui.element("div").classes("row-of end"):
                ui.button("Close", on_click=self._dialog.close).props("flat no-caps").classes("button")
        self._dialog.open()

    async def _roll_back(self, alias: Alias, version: int) -> None:
        await self._view.osora.aliases.rollback(alias["name"], version, expected_version=alias["version"])
        self._dialog.close()
        await self._reload()

    async def _remove(self, alias: Alias) -> None:
        async def remove() -> None:
            await self._view.osora.aliases.delete(alias["name"])
            self._dialog.close()
            await self._reload()

        self._dialog.clear()
        with self._dialog, ui.card().classes("question"):
            heading(f"Remove the alias {alias['name']}?", 2)
            ui.label("Calls by that name fail from then on. What it stands for stays.")
            with ui.element("div").classes("row-of end"):
                ui.button("Keep it", on_click=self._dialog.close).props("flat no-caps").classes("button")
                button = ui.button("Remove", on_click=self._view.does(remove)).props("flat no-caps")
                button.classes("button danger")
        self._dialog.open()

    def _options(self) -> dict[str, str]:
        """What an alias may stand for, by name: not by id, which an alias never shows."""
        assert self._choice is not None
        named = {one["name"]: f"{short_name(one['name'])} · {one['id'][-6:]}" for one in self._choice.adapters}
        bases = {name: f"{name} (base)" for name in self._choice.base_names()}
        return {self._adapter["name"]: short_name(self._adapter["name"]), **named, **bases}


class Targets:
    """Fields for some models and their weights."""

    def __init__(self, options: dict[str, str], weights: dict[str, int]) -> None:
        self._options = {**{name: short_name(name) for name in weights}, **options}
        self._fields: list[tuple[ui.element, ui.select, ui.number]] = []
        self._list = ui.element("div").classes("stack tight")
        for name, weight in weights.items():
            self._add(name, weight)
        ui.button("Add a model", on_click=lambda: self._add(None, 5)).props("flat no-caps").classes("button quiet")

    def weights(self) -> dict[str, int]:
        return {str(model.value): int(weight.value) for _, model, weight in self._fields}

    def problem(self) -> str:
        """What is wrong with what was filled in, if anything."""
        chosen = [model.value for _, model, _ in self._fields]
        if not chosen or None in chosen:
            return "Choose a model in every line, or remove the line."
        if len(set(chosen)) < len(chosen):
            return "A model is there twice. Remove one of the lines."
        if any(not weight.value or not 1 <= weight.value <= _LARGEST_WEIGHT for *_, weight in self._fields):
            return f"A weight is a whole number from 1 to {_LARGEST_WEIGHT:,}."
        return ""

    def _add(self, model: str | None, weight: int) -> None:
        if len(self._fields) >= _MOST_TARGETS:
            return
        with self._list, ui.element("div").classes("target") as line:
            chosen = ui.select(self._options, value=model, label="Model", with_input=True).props("outlined dense")
            weighed = ui.number("Weight", value=weight, min=1, max=_LARGEST_WEIGHT, precision=0).props("outlined dense")
            field = (line, chosen, weighed)
            _quiet("Remove", "Remove this model", lambda: self._drop(field))
        self._fields.append(field)

    def _drop(self, field: tuple[ui.element, ui.select, ui.number]) -> None:
        self._fields.remove(field)
        field[0].delete()


def _quiet(text: str, label: str, on_click: Callable[[], Awaitable[None] | None]) -> None:
    button = ui.button(text, on_click=on_click).props("flat no-caps").classes("button quiet small")
    button.props["aria-label"] = label
