"""The aliases of an adapter: whom they stand for, by which weights, and how that was before."""

from functools import partial

from nicegui import ui

from console.adapter_facts import aliases_of, shares, short_name
from console.choosing import Choice, choice
from console.layout import panel
from console.press import press, question
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
        with panel("Aliases"), ui.element("div").classes("aliases"):
            about = "A name of your own for it. Models may share a name: a canary gets a small part of the requests."
            ui.label(about).classes("small muted")
            self._list = ui.element("div").classes("stack tight")
            press("New alias", self._view.does(self._new))
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
                    for text, work in (("Edit", self._edit), ("History", self._history), ("Remove", self._remove)):
                        label = f"{text}: {alias['name']}"
                        press(text, self._view.does(partial(work, alias)), "quiet small", label)
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
        with question(f"Targets of {alias['name']}" if alias else "New alias", self._dialog, wide=True):
            name = None if alias else ui.input("Name", placeholder="triage").props("outlined dense").classes("w-full")
            targets = Targets(self._options(), dict(alias["targets"]) if alias else {self._adapter["name"]: 100})
            problem = ui.label().classes("problem-message").props("role=alert")
            with ui.element("div").classes("row-of end"):
                press("Leave it", self._dialog.close)
                save = self._view.does(partial(self._save, alias, name, targets, problem))
                press("Save", save, "primary")
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
        with question(f"History of {alias['name']}", self._dialog, wide=True):
            for version in versions:
                with ui.element("div").classes("version"):
                    told = ", ".join(f"{short_name(name)} {share}" for name, _, share in shares(version["targets"]))
                    ui.label(f"{version['version']}: {told or 'deleted'}").classes("wrap")
                    ui.label(f"by {version.get('key_name', '')}").classes("small muted")
                    if version["version"] != alias["version"] and version["targets"]:
                        back = self._view.does(partial(self._roll_back, alias, version["version"]))
                        press("Bring back", back, "quiet small", f"Bring back version {version['version']}")
            with ui.element("div").classes("row-of end"):
                press("Close", self._dialog.close)
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

        with question(f"Remove the alias {alias['name']}?", self._dialog):
            ui.label("Calls by that name fail from then on. What it stands for stays.")
            with ui.element("div").classes("row-of end"):
                press("Keep it", self._dialog.close)
                press("Remove", self._view.does(remove), "danger")
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
        press("Add a model", lambda: self._add(None, 5), "quiet")

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
            press("Remove", lambda: self._drop(field), "quiet small", "Remove this model")
        self._fields.append(field)

    def _drop(self, field: tuple[ui.element, ui.select, ui.number]) -> None:
        self._fields.remove(field)
        field[0].delete()
