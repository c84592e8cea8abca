"""Two models on a file's rows, in a browser."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.conftest import Service
from tests.acceptance.console.conftest import Opener
from tests.support.browser import serious


def rows(path: Path, *answers: str) -> Path:
    """A question each, whose right answer is this one."""
    messages = [
        [{"role": "user", "content": "Which city?"}, {"role": "assistant", "content": answer}] for answer in answers
    ]
    path.write_text("".join(json.dumps({"messages": one}) + "\n" for one in messages))
    return path


def compare(page: Page, path: Path) -> None:
    page.locator("input[type=file]").set_input_files(path)
    expect(page.get_by_text(f"{path.name} is there.")).to_be_visible()
    page.get_by_role("button", name="Compare").click()


def test_who_is_right_how_often_and_where_they_differ(opened: Opener, trained: str, tmp_path: Path) -> None:
    page = opened(f"/compare?right={trained}")
    compare(page, rows(tmp_path / "held-out.jsonl", "Oslo", "<b>Rome</b>", "Oslo", "Oslo"))
    expect(page.get_by_text("4 of 4 rows")).to_be_visible()
    exact = page.locator(".figure", has_text="exact match").locator(".figure-value")
    expect(exact.nth(0)).to_have_text("0.0%")
    expect(exact.nth(1)).to_have_text("75.0%")
    table = page.get_by_role("region", name="Rows, those that differ first")
    expect(table.get_by_text("✓ right")).to_have_count(3)
    expect(table.get_by_text("<b>Rome</b>")).to_be_visible()  # as text
    assert serious(page) == []


def test_a_file_that_is_here_and_one_that_is_wrong(
    opened: Opener, service: Service, trained: str, tmp_path: Path
) -> None:
    kept = service.sdk.files.upload(rows(tmp_path / "kept.jsonl", "Oslo", "Oslo"))
    page = opened(f"/compare?left={trained}&right={trained}")
    chosen = page.get_by_role("combobox", name="A file that is here")
    chosen.fill("kept")
    page.get_by_role("option", name=f"kept.jsonl · {kept['id'][-6:]}").click()
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text("2 of 2 rows")).to_be_visible()
    expect(page.locator(".figure", has_text="Both say the same")).to_contain_text("100.0%")

    bad = tmp_path / "bad.jsonl"
    bad.write_text(rows(tmp_path / "good.jsonl", "Oslo").read_text() + '{"messages": 3}\n')
    compare(page, bad)
    notice = page.locator(".q-notification")
    expect(notice).to_contain_text("bad.jsonl: line 2: `messages` is not a list of messages.")
    assert serious(page) == []
    assert str(tmp_path) not in page.content()


def test_what_is_missing_is_asked_for(opened: Opener, trained: str) -> None:
    page = opened(f"/compare?right={trained}")
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(".q-notification")).to_contain_text("No rows were chosen. Next: choose a file.")


@pytest.mark.parametrize("looks", [{"dark": True}, {"phone": True}], ids=str)
def test_it_is_readable_in_the_dark_and_on_a_phone(
    opened: Opener, trained: str, tmp_path: Path, looks: dict[str, bool]
) -> None:
    page = opened(f"/compare?right={trained}", **looks)
    compare(page, rows(tmp_path / "held-out.jsonl", "Oslo", "Rome"))
    expect(page.get_by_text("2 of 2 rows")).to_be_visible()
    assert serious(page) == []
    assert page.evaluate("() => document.documentElement.scrollWidth - innerWidth") == 0
