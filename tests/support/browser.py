"""A real browser for tests: Debian's Chromium, headless, whose complaints and requests are all looked at."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import axe_playwright_python
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, Request, expect, sync_playwright

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 800}
# Bounds of a wait, not waits: on a busy machine a page's code takes a while to be compiled.
PATIENCE_MS = 60_000
_NAMES = ("chromium", "chromium-browser", "google-chrome")
# A dialog that fades in is half transparent, and so is its text; the class is there until the last frame of it.
_AT_REST = "() => !document.querySelector('[class*=-enter-active]') && !document.getAnimations().some(_runs)".replace(
    "_runs", "one => one.playState === 'running' && one.effect?.getComputedTiming().endTime !== Infinity"
)
_AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")


@dataclass
class Watched:
    """A page, and what was wrong with it so far."""

    page: Page
    origin: str
    tolerated: tuple[str, ...] = ()
    complaints: list[str] = field(default_factory=list)


def find() -> str:
    """The path of Chromium; where there is none, `make install` has not been run to its end."""
    for name in _NAMES:
        if path := shutil.which(name):
            return path
    raise AssertionError("no Chromium was found, which the browser tests need: `make browser` installs it")


@contextmanager
def launched() -> Iterator[Browser]:
    """A browser for many tests."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = start(playwright)
        yield browser
        browser.close()


def start(playwright: Playwright) -> Browser:
    """Chromium, without its own sandbox: in containers there is none to be had."""
    return playwright.chromium.launch(executable_path=find(), args=["--no-sandbox", "--disable-dev-shm-usage"])


@contextmanager
def watched(
    browser: Browser, origin: str, *, phone: bool = False, dark: bool = False, tolerated: tuple[str, ...] = ()
) -> Iterator[Watched]:
    """A page of a browser profile of its own. Afterwards there may be no error in its console, but for those that begin
    with what is `tolerated`, and no request that went elsewhere."""
    context = browser.new_context(
        base_url=origin,
        viewport=PHONE if phone else DESKTOP,  # type: ignore[arg-type]
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    found = Watched(page, origin, tolerated)
    watch(page, found)
    try:
        yield found
    finally:
        context.close()
    assert not found.complaints, found.complaints


def watch(page: Page, found: Watched) -> None:
    """Note what is wrong with a page from now on."""

    def requested(request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != urlsplit(found.origin).netloc:
            found.complaints.append(f"a request to {request.url}")

    page.on("request", requested)
    page.on("websocket", lambda socket: _same(socket.url, found))
    page.on("pageerror", lambda error: found.complaints.append(f"an error: {error}"))
    page.on("console", lambda said: _heard(said, found))


def _heard(said: ConsoleMessage, found: Watched) -> None:
    if said.type == "error" and not said.text.startswith(found.tolerated):
        found.complaints.append(f"console: {said.text} ({said.location['url']})")


def _same(url: str, found: Watched) -> None:
    if urlsplit(url).netloc != urlsplit(found.origin).netloc:
        found.complaints.append(f"a socket to {url}")


def connected(page: Page) -> None:
    """Wait until what is done on a page reaches the console; a plain page, without the framework, does not need to."""
    page.wait_for_function(
        "() => document.readyState !== 'loading' && (!document.getElementById('app') || window.did_handshake)"
    )


def serious(page: Page) -> list[str]:
    """What axe-core finds on a page that is serious or worse, once nothing moves or fades on it any more."""
    page.wait_for_function(_AT_REST)
    page.evaluate(_AXE.read_text() + "; undefined")
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{violation['id']}: {violation['help']}: {node['html'][:160]} {_measured(node)}".strip()
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def _measured(node: Any) -> str:
    """What was wrong with it, such as its contrast."""
    return "; ".join(check["message"] for check in node["any"])


def install() -> None:
    """`python -m tests.support.browser`: have the system's package manager bring Chromium, where it is absent."""
    try:
        find()
    except AssertionError:
        apt = ["apt-get", "install", "--yes", "--no-install-recommends", "chromium"]
        subprocess.run(["apt-get", "update"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(apt, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    install()
