"""An adapter in a browser: what is known of it, how it is called, its aliases, its files, its end."""

import io
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.acceptance.conftest import Service
from tests.acceptance.console.conftest import Opener
from tests.acceptance.console.models import copied, learned
from tests.support.browser import serious


@pytest.fixture(scope="module")
def adapter(service: Service, tmp_path_factory: pytest.TempPathFactory) -> str:
    return learned(service, tmp_path_factory.mktemp("adapters"), "Bergen", "harbours")


def test_from_the_list_to_an_adapter_with_its_figures(opened: Opener, service: Service, adapter: str) -> None:
    page = opened("/adapters")
    row = page.get_by_role("row").filter(has=page.locator(f'a[href="/adapters/{adapter}"]'))
    expect(row).to_contain_text("harbours")
    assert serious(page) == []
    row.get_by_role("link").click()
    expect(page.get_by_role("heading", name="harbours", level=1)).to_be_visible()
    known = service.sdk.adapters.get(adapter)
    about = page.locator(".facts").first
    for said in (known["id"], known["base"], known["sha256"], f"{known['parameters']:,}"):
        expect(about).to_contain_text(said)
    measured = page.get_by_role("region", name="Before and after")
    expect(measured.get_by_role("row").filter(has_text="Exact match")).to_contain_text("100%")
    assert serious(page) == []


def test_snippets_go_by_the_slider_which_keys_move(opened: Opener, service: Service, adapter: str) -> None:
    page = opened(f"/adapters/{adapter}")
    code = page.locator("pre:visible")
    expect(code).to_contain_text(f'adapter="{adapter}"')
    expect(code).to_contain_text(service.url)
    slider = page.get_by_role("slider", name="Strength").locator("[tabindex='0']")  # what the tab key reaches
    slider.focus()
    slider.press("ArrowLeft")
    expect(code).to_contain_text("strength=0.95")
    page.get_by_role("tab", name="curl").click()
    expect(code).to_contain_text('"strength": 0.95')
    page.get_by_role("tab", name="openai").click()
    expect(code).to_contain_text(f'model="{adapter}"')


def test_a_download_is_the_adapter_and_a_refusal_is_said(opened: Opener, service: Service, adapter: str) -> None:
    page = opened(f"/adapters/{adapter}")
    for name in ("OSoRA", "LoRA"):
        with page.expect_download() as download:
            page.get_by_role("link", name=f"Download as {name}").click()
        names = zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes())).namelist()
        assert "adapter_model.safetensors" in names
        assert download.value.suggested_filename == f"{adapter}-{name.lower()}.zip"
    refused = page.request.get("/downloads/adapters/adp-none?format=lora")
    assert (refused.status, refused.text()) == (
        404, "no adapter 'adp-none'. Next: list the adapters for their ids and names.\n"
    )  # fmt: skip


def test_an_alias_with_a_canary_its_weights_and_the_way_back(opened: Opener, service: Service, adapter: str) -> None:
    page = opened(f"/adapters/{adapter}")
    page.get_by_role("button", name="New alias").click()
    page.get_by_label("Name").fill("port")
    page.get_by_role("button", name="Add a model").click()
    expect(page.get_by_role("dialog", name="New alias")).to_be_visible()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_have_text("Choose a model in every line, or remove the line.")
    assert serious(page) == []
    chosen = page.get_by_role("combobox", name="Model").nth(1)
    chosen.fill("osora-tiny")
    expect(page.get_by_role("option", name="osora-tiny (base)")).to_be_visible()
    assert serious(page) == []
    page.get_by_role("option", name="osora-tiny (base)").click()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("4.76 % · weight 5")).to_be_visible()
    name = service.sdk.adapters.get(adapter)["name"]
    assert service.sdk.aliases.get("port")["targets"] == {name: 100, "osora-tiny": 5}

    page.get_by_role("button", name="Edit: port").click()
    expect(page.get_by_role("dialog", name="Targets of port")).to_be_visible()
    assert serious(page) == []
    page.get_by_label("Weight").nth(1).fill("25")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("20 % · weight 25")).to_be_visible()
    page.get_by_role("button", name="History: port").click()
    expect(page.get_by_role("dialog", name="History of port")).to_be_visible()
    assert serious(page) == []
    page.get_by_role("button", name="Bring back version 1").click()
    expect(page.get_by_text("4.76 % · weight 5")).to_be_visible()

    # Who edits what somebody else has changed meanwhile is told so, and overwrites nothing.
    page.get_by_role("button", name="Edit: port").click()
    service.sdk.aliases.set("port", name)
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".q-notification")).to_contain_text("'port' is at version 4")
    assert serious(page) == []
    assert service.sdk.aliases.get("port")["targets"] == {name: 1}
    page.reload()
    page.get_by_role("button", name="Remove: port").click()
    expect(page.get_by_role("dialog", name="Remove the alias port?")).to_be_visible()
    assert serious(page) == []
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(page.get_by_role("button", name="Edit: port")).to_have_count(0)


def test_it_is_deleted_once_no_alias_needs_it(opened: Opener, service: Service, adapter: str, tmp_path: Path) -> None:
    copy = copied(service, adapter, tmp_path, "doomed")
    service.sdk.aliases.set("held", copy)
    page = opened(f"/adapters/{copy}")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog", name="Delete doomed?")).to_be_visible()
    assert serious(page) == []
    page.get_by_role("button", name="Keep it").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Delete")).to_be_focused()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator(".q-notification")).to_contain_text("'held'")
    service.sdk.aliases.delete("held")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="Adapters", level=1)).to_be_visible()
    expect(page.locator(f'a[href="/adapters/{copy}"]')).to_have_count(0)
    page.goto(f"/adapters/{copy}")
    expect(page.get_by_role("alert")).to_contain_text(f"no adapter '{copy}'")


def test_who_has_none_is_told_what_to_do(opened: Opener, service: Service) -> None:
    service.sdk.tenants.create("empty-handed")
    key = service.sdk.keys.create("eyes", tenant="empty-handed", scopes=["read"])["key"]
    page = opened("/adapters", key=key)
    expect(page.get_by_text("No adapters yet.")).to_be_visible()
    expect(page.get_by_role("link", name="Start a job")).to_have_attribute("href", "/jobs/new")


@pytest.mark.parametrize("looks", [{"dark": True}, {"phone": True}], ids=str)
def test_it_is_readable_in_the_dark_and_on_a_phone(opened: Opener, adapter: str, looks: dict[str, bool]) -> None:
    for path in ("/adapters", f"/adapters/{adapter}"):
        page = opened(path, **looks)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert serious(page) == []
        assert page.evaluate("() => document.documentElement.scrollWidth - innerWidth") == 0
