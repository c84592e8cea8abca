"""What was used and what runs, in a browser: each sees what its key may see."""

import pytest
from playwright.sync_api import expect

from tests.acceptance.conftest import BASE, Service
from tests.acceptance.console.conftest import Opener
from tests.support.browser import serious


def test_what_was_used_by_whom_and_what_is_left(opened: Opener, service: Service, trained: str) -> None:
    page = opened("/usage")
    keys = page.get_by_role("region", name="Usage by key, the busiest first")
    expect(keys.get_by_role("row").filter(has_text="local")).to_be_visible()
    expect(page.get_by_role("img", name="Tokens by day")).to_be_visible()
    expect(page.get_by_role("heading", name="Quotas of default")).to_be_visible()
    expect(page.get_by_text("Jobs that wait")).to_be_visible()
    expect(page.get_by_text("Checkpoints")).to_be_visible()
    assert serious(page) == []
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert download.value.path().read_text().startswith("day,tenant,key_id")
    page.get_by_role("link", name="7 days").click()
    expect(page.get_by_role("link", name="7 days")).to_have_attribute("aria-current", "page")


def test_another_tenant_sees_its_own_alone(opened: Opener, service: Service, trained: str) -> None:
    service.sdk.tenants.create("thrifty")
    key = service.sdk.keys.create("purse", tenant="thrifty", scopes=["read"])["key"]
    page = opened("/usage", key=key)
    expect(page.get_by_text("Nothing was used in these 30 days.")).to_be_visible()
    expect(page.get_by_role("heading", name="Quotas of thrifty")).to_be_visible()
    assert "local" not in page.locator("#content").inner_text()


def test_the_operator_sees_servers_workers_and_the_queue(opened: Opener, service: Service, trained: str) -> None:
    service.sdk.generate("Which city?", adapter=trained)
    page = opened("/system")
    page.get_by_role("switch", name="Follow").click()  # a worker that had to wait may be late with its sign of life
    expect(page.locator(".crew", has_text="live").first).to_be_visible()
    page.get_by_role("switch", name="Follow").click()
    server = page.locator("section.panel", has=page.get_by_role("heading", name="Inference server 1"))
    expect(server).to_contain_text(BASE)
    expect(server.get_by_role("img", name="Adapters in the bank: 0 of")).to_have_count(0)
    expect(page.get_by_text("Database")).to_be_visible()
    assert serious(page) == []


def test_it_looks_again_only_while_it_is_told_to(opened: Opener, service: Service, trained: str) -> None:
    page = opened("/system")
    expect(page.locator(".crew").first).to_be_visible()
    page.evaluate("() => document.querySelector('.crew').setAttribute('data-old', '1')")
    page.get_by_role("switch", name="Follow").click()
    expect(page.locator("[data-old]")).to_have_count(0)
    page.get_by_role("switch", name="Follow").click()
    expect(page.get_by_role("switch", name="Follow")).not_to_be_checked()


def test_others_are_told_whether_it_is_up_and_who_may_see_more(opened: Opener, service: Service) -> None:
    key = service.sdk.keys.create("looks on", scopes=["read"])["key"]
    page = opened("/system", key=key)
    expect(page.get_by_role("heading", name="Ready")).to_be_visible()
    expect(page.get_by_text("this takes the scope 'operator'")).to_be_visible()
    assert page.locator(".crew").count() == 0


@pytest.mark.parametrize("looks", [{"dark": True}, {"phone": True}], ids=str)
def test_it_is_readable_in_the_dark_and_on_a_phone(opened: Opener, trained: str, looks: dict[str, bool]) -> None:
    for path in ("/usage", "/system"):
        page = opened(path, **looks)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert serious(page) == []
        assert page.evaluate("() => document.documentElement.scrollWidth - innerWidth") == 0
