"""A browser whose connection breaks off, and a console whose API does: nothing of a live job is lost."""

from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect

from osora.serve.console_link import issue
from tests.acceptance.conftest import Service, child
from tests.acceptance.console.conftest import Opener
from tests.acceptance.console.test_jobs import becomes, comes_to, on_its_way, step
from tests.support import browser as browsers
from tests.support.browser import PATIENCE_MS, connected
from tests.support.lines import line_to

# What Chromium itself says of a line that is cut.
OF_A_CUT_LINE = ("WebSocket connection to", "Failed to load resource: net::ERR")
# What the charts of a page are drawn from.
CURVES = """() => [...document.querySelectorAll('.chart')].map((chart) =>
    getElement(chart.id.slice(1)).chart.getOption().series.map((line) => [line.name, line.data]))"""


def shown(page: Page) -> dict[str, Any]:
    """All that a job's page tells of how it went."""
    return {"curves": page.evaluate(CURVES), "events": page.locator(".event").all_inner_texts()}


def shows_all(page: Page, opened: Opener, service: Service, job_id: str) -> None:
    """A page that was open all along shows what one shows that is opened now."""
    last = next(event for event in service.sdk.jobs.list_events(job_id) if event.get("type") != "metrics")
    fresh = opened(f"/jobs/{job_id}")
    for one in (page, fresh):  # its curves are painted with its events
        expect(one.locator(".event").first).to_contain_text(last["message"])
    assert len(shown(fresh)["curves"][0][0][1]) > 1
    assert shown(page) == shown(fresh)


def goes_on(service: Service, job_id: str) -> None:
    """Wait until it has taken another step."""
    newest = next(iter(service.sdk.jobs.list_events(job_id, 1)))
    for event in service.sdk.jobs.events(job_id, newest["id"]):
        if (event.get("data") or {}).get("train_loss") is not None:
            return


def test_a_line_that_breaks_off_loses_nothing_of_a_live_curve(
    opened: Opener, service: Service, browser: Browser, console: str, tmp_path: Path
) -> None:
    job_id = on_its_way(service, tmp_path)
    with line_to(console) as line, browsers.watched(browser, line.url, tolerated=OF_A_CUT_LINE) as watched:
        page = watched.page
        page.goto(issue(service.data_dir, line.url))
        page.goto(f"/jobs/{job_id}")
        connected(page)
        comes_to(page, step(page) + 1)
        line.silence()
        line.cut()
        expect(page.get_by_text("Connection lost")).to_be_visible()
        goes_on(service, job_id)
        service.sdk.jobs.cancel(job_id)
        service.sdk.jobs.wait(job_id)
        line.mend()
        becomes(page, "cancelled")
        expect(page.get_by_text("Connection lost")).to_be_hidden()
        shows_all(page, opened, service, job_id)


def test_an_api_that_is_started_anew_loses_nothing_of_a_live_curve(
    opened: Opener, service: Service, tmp_path: Path
) -> None:
    job_id = on_its_way(service, tmp_path)
    page = opened(f"/jobs/{job_id}")
    comes_to(page, step(page) + 1)
    before = step(page)
    child(service, "api").kill()
    notice = page.get_by_text("What is shown may be old; trying again.")
    expect(notice).to_be_visible()
    expect(notice).to_be_hidden(timeout=4 * PATIENCE_MS)
    comes_to(page, before + 1)
    service.sdk.jobs.cancel(job_id)
    becomes(page, "cancelled")
    shows_all(page, opened, service, job_id)


def test_who_was_signed_out_meanwhile_comes_to_the_door_and_from_there_back(
    service: Service, browser: Browser, console: str
) -> None:
    refused = (*OF_A_CUT_LINE, "Failed to load resource: the server responded with a status of 401")
    with line_to(console) as line, browsers.watched(browser, line.url, tolerated=refused) as watched:
        page = watched.page
        page.goto(issue(service.data_dir, line.url))
        page.goto("/system")
        connected(page)
        line.cut()
        expect(page.get_by_text("Connection lost")).to_be_visible()
        assert page.context.request.post(f"{console}/sign-out", headers={"origin": console}).ok
        line.mend()
        expect(page.get_by_label("API key")).to_be_visible()
        page.get_by_label("API key").fill(service.key)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="System")).to_be_visible()
