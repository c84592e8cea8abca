"""One adapter, or a checkpoint."""

from functools import partial
from typing import Any
from urllib.parse import quote

from nicegui import ui

from console.adapter_facts import Change, before_and_after, origin, short_name
from console.alias_panel import AliasPanel
from console.layout import button_link, heading, panel
from console.press import press, question
from console.snippets import snippets
from console.tables import facts, plain_table
from console.view import View, page
from console.words import human_bytes, when
from osora.errors import OsoraAPIError
from osora.schemas import Adapter, Event

_FORMATS = {
    "osora": ("OSoRA", "As it was trained: for PEFT and for Osora elsewhere."),
    "lora": ("LoRA", "For vLLM, SGLang and PEFT without our package."),
    "merged": ("Merged", "The whole base with the adapter in it, for transformers."),
    "gguf": ("GGUF", "One file for llama.cpp and Ollama."),
}
_STRONGEST = 2.0
# Where there is no clipboard (a page without TLS), the text is selected instead.
_COPY = """(event) => {
  const code = event.currentTarget.parentElement.querySelector("pre");
  if (navigator.clipboard) navigator.clipboard.writeText(code.textContent);
  else getSelection().selectAllChildren(code);
}"""


@page("/adapters/{adapter_id}", "Adapter")
async def show(view: View, adapter_id: str) -> None:
    """All that is known of it, and all that can be done with it."""
    adapter = await view.osora.adapters.get(adapter_id)
    bases = {base["name"]: base for base in await view.osora.bases()}
    is_chat = bases.get(adapter["base"], {}).get("has_chat_template") is not False
    with ui.element("div").classes("title-row"):
        with ui.element("div"):
            heading(short_name(adapter["name"]))
            ui.label(adapter["name"]).classes("mono small muted wrap")
        with ui.element("div").classes("row-of"):
            button_link("Try it", f"/playground?model={quote(adapter['id'])}")
            button_link("Compare", f"/compare?right={quote(adapter['id'])}", primary=False)
            _delete_button(view, adapter)
    with ui.element("div").classes("columns"):
        with ui.element("div").classes("stack"):
            _facts(adapter)
            await _figures(view, adapter)
            _exports(adapter)
        with ui.element("div").classes("stack"):
            _calls(view, adapter, is_chat=is_chat)
            await AliasPanel(view, adapter).show()


def _facts(adapter: Adapter) -> None:
    def from_where() -> None:
        if adapter.get("job_id"):
            ui.link(origin(adapter), f"/jobs/{adapter['job_id']}")
        else:
            ui.label(origin(adapter))

    parameters, expires = adapter.get("parameters"), adapter.get("expires_at")
    with panel("About", "one-by-one"):
        facts(
            [
                ("Base", adapter["base"]),
                ("Origin", from_where),
                ("Size", human_bytes(adapter["bytes"])),
                ("Kind", "plain LoRA" if adapter.get("type") == "lora" else "OSoRA"),
                ("Rank", str(adapter.get("rank", ""))),
                ("Parameters", f"{parameters:,}" if parameters else None),
                ("Made", when(adapter["created_at"])),
                ("Deleted by itself", when(expires) if expires else None),
                ("Id", lambda: ui.label(adapter["id"]).classes("mono")),
                ("SHA-256", lambda: ui.label(adapter.get("sha256", "")).classes("mono small")),
            ]
        )


async def _figures(view: View, adapter: Adapter) -> None:
    """The job may be gone, or have been measured by nothing: then there is nothing to show."""
    if not adapter.get("job_id"):
        return
    try:
        events: list[Event] = [event async for event in view.osora.jobs.list_events(str(adapter["job_id"]))]
    except OsoraAPIError as error:
        if error.status != 404:
            raise
        return
    changes = before_and_after(events, adapter.get("step"))
    with panel("Before and after"):
        if not changes:
            ui.label("Its job had no validation rows, so nothing was measured.").classes("muted")
            return
        _changes(changes)


def _changes(changes: list[Change]) -> None:
    rows = [(change.name, change.before, partial(_after, change)) for change in changes]
    plain_table(("Measure", "Base", f"Step {changes[0].after_step}"), rows, "Before and after", right=(1, 2))


def _after(change: Change) -> None:
    ui.label(change.after).classes("good strong" if change.is_better else "warn strong")


def _exports(adapter: Adapter) -> None:
    with panel("Download"), ui.element("ul").classes("choices"):
        for name, (title, about) in _FORMATS.items():
            if name == "osora" and adapter.get("type") == "lora":
                continue  # there is none that equals it
            with ui.element("li"):
                with ui.element("div"):
                    ui.label(title).classes("strong")
                    ui.label(about).classes("small muted")
                link = button_link("Download", f"/downloads/adapters/{adapter['id']}?format={name}", primary=False)
                link.props(f'aria-label="Download as {title}"')


def _calls(view: View, adapter: Adapter, *, is_chat: bool) -> None:
    """The slider, and the snippets that go by it."""
    with panel("Call it"):
        with ui.element("div").classes("strength"):
            ui.label("Strength")
            slider = ui.slider(min=0, max=_STRONGEST, step=0.05, value=1.0).props('aria-label="Strength" color=primary')
            told = ui.label("1.00").classes("number")
        ui.label("0 is the bare base, 1 as it was trained. Each request may say its own.").classes("small muted")
        with ui.tabs().props("dense align=left no-caps").classes("code-tabs") as tabs:
            texts = [ui.tab(one.name) for one in _snippets(view, adapter, 1.0, is_chat)]
        codes: list[ui.label] = []
        with ui.tab_panels(tabs, value=texts[1]).props("animated=false").classes("code-panels"):
            for one in _snippets(view, adapter, 1.0, is_chat):
                with ui.tab_panel(one.name):
                    codes.append(code(one.text, one.name))

    def scaled() -> None:
        strength = round(float(slider.value), 2)
        told.text = f"{strength:.2f}"
        for label, one in zip(codes, _snippets(view, adapter, strength, is_chat), strict=True):
            label.text = one.text

    slider.on_value_change(scaled)


def _snippets(view: View, adapter: Adapter, strength: float, is_chat: bool) -> Any:
    return snippets(view.osora.url, adapter["id"], strength=strength, is_chat=is_chat)


def code(text: str, name: str) -> ui.label:
    """A piece of code with a button that copies it."""
    with ui.element("div").classes("code"):
        with ui.element("pre").props("tabindex=0"):
            label = ui.label(text)
        with ui.element("button").props("type=button").classes("button quiet") as button:
            ui.icon("content_copy").props("aria-hidden=true")
        button.props["aria-label"] = f"Copy for {name}"
        button.on("click", js_handler=_COPY)
    return label


def _delete_button(view: View, adapter: Adapter) -> None:
    async def delete() -> None:
        await view.osora.adapters.delete(adapter["id"])
        ui.navigate.to("/adapters")

    with question(f"Delete {short_name(adapter['name'])}?") as dialog:
        ui.label("It is gone for good, and calls of it fail from then on. Its job and its checkpoints stay.")
        with ui.element("div").classes("row-of end"):
            press("Keep it", dialog.close)
            press("Delete", view.does(delete), "danger")
    press("Delete", dialog.open, "danger")
