"""A browser at the console of the installation that all acceptance tests share."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, Page, expect

from osora.serve.console_link import issue
from tests.acceptance.conftest import Service
from tests.support import browser as browsers

Opener = Callable[..., Page]


@pytest.fixture(scope="module")  # it has a running event loop in this very thread, which other tests could not bear
def browser() -> Iterator[Browser]:
    with browsers.launched() as browser:
        yield browser


@pytest.fixture(scope="session")
def console(service: Service) -> str:
    """Where the console is."""
    url: str = json.loads((service.data_dir / "run" / "serve.json").read_text())["console_url"]
    return url


@pytest.fixture
def opened(service: Service, browser: Browser, console: str) -> Iterator[Opener]:
    """Opens a path as the owner, in a browser profile of its own; with `key` as somebody else, with None as nobody."""
    with ExitStack() as stack:

        def open_page(path: str = "/", *, key: str | None = "", phone: bool = False, dark: bool = False) -> Page:
            page = stack.enter_context(browsers.watched(browser, console, phone=phone, dark=dark)).page
            if key == "":
                page.goto(issue(service.data_dir, console))
            elif key is not None:
                page.goto("/sign-in")
                page.get_by_label("API key").fill(key)
                page.get_by_role("button", name="Sign in").click()
                expect(page.get_by_role("button", name="Sign out")).to_be_visible()  # not before the cookie is there
            page.goto(path)
            browsers.connected(page)
            return page

        yield open_page
