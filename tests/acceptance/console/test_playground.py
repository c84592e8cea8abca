"""One prompt to several models, in a browser."""

import json

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.conftest import Service
from tests.acceptance.console.conftest import Opener
from tests.acceptance.console.models import SCRIPT, learned
from tests.support.browser import serious


@pytest.fixture(scope="module")
def scripted(service: Service, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An adapter whose every answer would be a script, were it read as HTML."""
    return learned(service, tmp_path_factory.mktemp("playground"), SCRIPT, "scripted")


def ask(page: Page, prompt: str) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_label("Prompt", exact=True).press("Control+Enter")


def test_answers_stand_side_by_side_and_are_text(opened: Opener, service: Service, scripted: str, trained: str) -> None:
    page = opened(f"/playground?model={scripted}&model={trained}")
    base, script, cities = (page.locator("section.answer").nth(place) for place in range(3))
    expect(base.get_by_role("heading")).to_have_text("osora-tiny")
    ask(page, "Which city?")
    for column in (base, script, cities):
        expect(column).to_contain_text("tokens/s")
    expect(script.locator(".tokens")).to_have_text(SCRIPT)
    expect(cities.locator(".tokens")).to_have_text("Oslo")
    assert page.title() == "Playground · Osora"
    assert page.locator(".tokens img, .tokens script").count() == 0
    assert serious(page) == []

    token = cities.locator(".token").first
    token.hover()
    expect(cities.locator(".token-card")).to_contain_text("%")
    token.focus()
    page.keyboard.press("Escape")
    expect(cities.locator(".token-card")).to_have_count(0)
    page.keyboard.press("ArrowRight")
    expect(cities.locator(".token").nth(1)).to_be_focused()

    script.get_by_role("button", name="Receipt").click()
    known = service.sdk.adapters.get(scripted)
    for said in (scripted, known["sha256"]):
        expect(script.locator(".receipt")).to_contain_text(said)
    assert serious(page) == []


def test_each_goes_on_with_its_own_answers_and_a_strength_is_its_own(opened: Opener, trained: str) -> None:
    page = opened(f"/playground?model={trained}&strength=0.5")
    column = page.locator("section.answer").nth(1)
    expect(column.get_by_text("0.50")).to_be_visible()
    slider = column.get_by_role("slider").locator("[tabindex='0']")  # what the tab key reaches
    slider.press("PageDown")
    expect(column.get_by_text("0.00")).to_be_visible()
    ask(page, "Which city?")
    expect(column.locator(".tokens")).to_have_count(1)
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("")
    assert (
        column.locator(".tokens").inner_text() == page.locator("section.answer").nth(0).locator(".tokens").inner_text()
    )
    for strength in ("0.50", "1.00", "1.50", "2.00"):  # one by one: the console answers each
        slider.press("PageUp")
        expect(column.get_by_text(strength)).to_be_visible()
    ask(page, "Name a city.")
    expect(column.locator(".asked")).to_have_text(["Which city?", "Name a city."])
    expect(column.locator(".tokens")).to_have_count(2)
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator(".asked")).to_have_count(0)


def test_a_conversation_becomes_a_training_file(opened: Opener, service: Service, trained: str) -> None:
    page = opened(f"/playground?model={trained}")
    column = page.locator("section.answer").nth(1)
    ask(page, "Which city?")
    column.get_by_role("button", name="Save as a training row").click()
    answer = page.get_by_role("dialog").get_by_label("Answer")
    expect(answer).to_have_value("Oslo")
    assert serious(page) == []
    answer.fill("Bergen, of course")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("1 row, kept while this page is open.")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download", exact=True).click()
    row = json.loads(download.value.path().read_text())
    page.get_by_role("button", name="Send as a training file").click()
    link = page.get_by_role("link", name="Train on it")
    file_id = (link.get_attribute("href") or "").partition("file=")[2]
    assert json.loads(service.sdk.files.content(file_id)) == row
    assert row == {
        "messages": [
            {"role": "user", "content": "Which city?"},
            {"role": "assistant", "content": "Bergen, of course"},
        ]
    }


def test_what_is_refused_is_said_where_the_answer_would_be(opened: Opener, service: Service, trained: str) -> None:
    page = opened(f"/playground?model=adp-none&model={trained}")
    expect(page.get_by_role("alert").first).to_contain_text("no adapter 'adp-none'")
    ask(page, "city " * 3000)
    for place in range(2):
        alert = page.locator("section.answer").nth(place).get_by_role("alert")
        expect(alert).to_contain_text("this base takes at most 1023 tokens")
    expect(page.get_by_role("button", name="Send")).to_be_visible()

    key = service.sdk.keys.create("looks only", scopes=["read"])["key"]
    page = opened("/playground", key=key)
    ask(page, "Which city?")
    expect(page.locator("section.answer").get_by_role("alert")).to_contain_text("'generate'")


@pytest.mark.parametrize("looks", [{"dark": True}, {"phone": True}], ids=str)
def test_it_is_readable_in_the_dark_and_on_a_phone(opened: Opener, trained: str, looks: dict[str, bool]) -> None:
    page = opened(f"/playground?model={trained}", **looks)
    page.get_by_text("Parameters and system message").click()
    ask(page, "Which city?")
    expect(page.locator("section.answer").nth(1)).to_contain_text("tokens/s")
    expect(page.locator("section.answer").nth(0)).to_contain_text("tokens/s")
    assert serious(page) == []
    assert page.evaluate("() => document.documentElement.scrollWidth - innerWidth") == 0
