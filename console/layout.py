"""What every page has around it: the bar with the navigation, and room for its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from nicegui import ui


@dataclass(frozen=True, order=True)
class Entry:
    """A page in the navigation."""

    place: int
    route: str
    title: str
    icon: str


@dataclass
class Navigation:
    """The pages that the bar leads to."""

    entries: list[Entry] = field(default_factory=list)

    def add(self, place: int, route: str, title: str, icon: str) -> None:
        """At its place, whichever module comes first."""
        self.entries = sorted([*self.entries, Entry(place, route, title, icon)])


@contextmanager
def frame(navigation: Navigation, route: str, title: str) -> Iterator[None]:
    """Build in here what is a page's own."""
    ui.context.client.content.classes("page")
    ui.dark_mode(_theme())
    with ui.element("a").props('href="#content"').classes("skip"):
        ui.label("Skip to the content")
    with ui.element("header").classes("bar"):
        with ui.element("a").props('href="/"').classes("brand"):
            ui.element("img").props('src="/static/osora.svg" alt="" width=24 height=24')
            ui.label("Osora")
        with ui.element("nav").props('aria-label="Pages"'):
            for entry in navigation.entries:
                _link(entry, is_here=entry.route == route)
        with ui.element("div").classes("bar-end"):
            _theme_button()
            with ui.element("form").props('method=post action="/sign-out"'), _submit("Sign out"):
                ui.icon("logout").props("aria-hidden=true")
                ui.label("Sign out").classes("wide-only")
    with ui.element("main").props('id=content tabindex=-1 aria-label="' + title + '"').classes("content"):
        yield


@contextmanager
def panel(title: str = "", classes: str = "") -> Iterator[ui.element]:
    """A part of a page, with a heading if it has a title."""
    with ui.element("section").classes(f"panel {classes}") as section:
        if title:
            heading(title, 2)
        yield section


def heading(text: str, level: int = 1) -> ui.element:
    """A heading."""
    with ui.element(f"h{level}") as element:
        ui.label(text).classes("inline")
    return element


def empty(message: str, link: tuple[str, str] | None = None) -> None:
    """What stands where there is nothing yet: what to do, and the way there."""
    with ui.element("div").classes("empty"):
        ui.label(message)
        if link:
            button_link(*link)


def button_link(text: str, href: str, *, primary: bool = True) -> ui.element:
    """A link that looks like a button."""
    with ui.element("a").classes("button primary" if primary else "button") as element:
        element.props["href"] = href
        ui.label(text)
    return element


def _link(entry: Entry, *, is_here: bool) -> None:
    with ui.element("a").props(f'href="{entry.route}"').classes("nav-link") as element:
        if is_here:
            element.props("aria-current=page")
        ui.icon(entry.icon).props("aria-hidden=true")
        ui.label(entry.title)


def _submit(label: str) -> ui.element:
    return ui.element("button").props(f'type=submit aria-label="{label}"').classes("button quiet")


def _theme_button() -> None:
    with ui.element("button").props('type=button aria-label="Light or dark"').classes("button quiet") as button:
        ui.icon("contrast").props("aria-hidden=true")
    # In the browser alone: what it shows is nobody else's business.
    button.on("click", js_handler="() => window.osoraTheme()")


def _theme() -> bool | None:
    chosen = ui.context.client.request.cookies.get("osora_theme")
    return {"light": False, "dark": True}.get(chosen or "")
