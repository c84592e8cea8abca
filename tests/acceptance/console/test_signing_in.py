"""Who gets in, by what, and who does not."""

import json

from playwright.sync_api import expect

from osora.serve.console_link import issue
from tests.acceptance.conftest import Service
from tests.acceptance.console.conftest import Opener
from tests.support.browser import connected


def test_who_is_not_signed_in_is_asked_for_a_key_and_comes_where_they_wanted(opened: Opener, service: Service) -> None:
    page = opened("/jobs?state=failed", key=None)
    page.get_by_label("API key").fill("osora-sk-" + "x" * 40)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("Next:")
    page.get_by_label("API key").fill(service.key)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(page.url.partition("/jobs")[0] + "/jobs?state=failed")
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    connected(page)
    (cookie,) = [one for one in page.context.cookies() if one["name"] == "osora_console"]
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")
    assert service.key not in json.dumps(page.context.storage_state())  # cookies, and what scripts can store
    assert page.evaluate("() => JSON.stringify({...sessionStorage})").find(service.key) == -1
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()
    page.goto("/jobs")
    expect(page.get_by_label("API key")).to_be_visible()


def test_a_link_signs_in_once(opened: Opener, service: Service, console: str) -> None:
    link = issue(service.data_dir, console)
    first, second = opened("/sign-in", key=None), opened("/sign-in", key=None)
    first.goto(link)
    expect(first.get_by_role("heading", name="Jobs")).to_be_visible()
    answer = second.request.get(link)
    assert (answer.status, "has been used" in answer.text()) == (403, True)
