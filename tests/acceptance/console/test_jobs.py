"""A fine-tune seen in a browser, from a file with a wrong line to a model that answers."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.conftest import BASE, Service, dataset
from tests.acceptance.console.conftest import Opener
from tests.support.browser import PATIENCE_MS, connected, serious

SCRIPT = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"


def started(service: Service, path: Path, **osora: Any) -> str:
    """A job that takes its time: more than any browser, however often that is made to wait."""
    file = service.sdk.files.upload(path)
    hyperparameters: Any = {"n_epochs": 50, "batch_size": 1}
    return service.sdk.jobs.create(BASE, file["id"], suffix="slow", hyperparameters=hyperparameters, osora=osora)["id"]  # type: ignore[arg-type]


def steps(service: Service, job_id: str) -> None:
    """Wait until it has taken a step, however long others keep the worker."""
    for event in service.sdk.jobs.events(job_id):
        if (event.get("data") or {}).get("train_loss") is not None:
            return
    raise AssertionError(service.sdk.jobs.get(job_id))


def on_its_way(service: Service, folder: Path) -> str:
    """A job that takes its time and has begun, with a curve of each kind."""
    job_id = started(service, dataset(folder / "slow.jsonl", "Oslo", rows=4000), validation_share=0.005)
    steps(service, job_id)
    return job_id


def becomes(page: Page, state: str) -> None:
    """Wait until a worker has done what was asked of it, and the page says so."""
    expect(page.locator(".state")).to_have_text(state, timeout=4 * PATIENCE_MS)


def choose(page: Page, path: Path) -> None:
    page.locator("input[type=file]").set_input_files(path)


def step(page: Page) -> int:
    """The step that a job's page shows."""
    shown = page.locator(".figure", has=page.get_by_text("step", exact=True)).locator(".figure-value").inner_text()
    found = re.match(r"([\d,]+) /", shown)
    return int(found[1].replace(",", "")) if found else 0


def comes_to(page: Page, number: int) -> None:
    """Wait until it shows this step, or a later one."""
    shown = "parseInt(document.querySelector('.figure-value')?.innerText.replaceAll(',', '') ?? '')"
    page.wait_for_function(f"number => {shown} >= number", arg=number)


def test_a_file_with_a_wrong_line_and_then_a_good_one_and_its_job(
    opened: Opener, service: Service, tmp_path: Path
) -> None:
    good = dataset(tmp_path / "good.jsonl", SCRIPT)
    lines = good.read_text().splitlines()
    lines[4] = lines[4].replace('"assistant"', '"asistant"')
    bad = tmp_path / "bad.jsonl"
    bad.write_text("\n".join(lines))

    page = opened("/jobs/new")
    choose(page, bad)
    table = page.get_by_role("region", name="Bad rows")
    expect(table.get_by_role("row").nth(1)).to_contain_text("5")
    expect(table.get_by_role("row").nth(1)).to_contain_text("use one of system, user, assistant, tool")
    assert serious(page) == []

    choose(page, good)
    expect(page.get_by_text("24 rows · chat")).to_be_visible()
    expect(page.locator("mark").first).to_contain_text("<script>")  # what is learned, as text
    expect(page.get_by_text("it would take", exact=True)).to_be_visible()
    page.get_by_role("textbox", name="Name").fill("seen")
    page.get_by_label("Prompts to try").fill("Which city?")
    page.get_by_label("Held out").fill("20")
    expect(page.locator("dd").filter(has_text="to validate on")).to_be_visible()
    assert serious(page) == []
    page.get_by_role("button", name="Start training").click()

    expect(page.get_by_role("heading", name="seen")).to_be_visible()
    steps(service, page.url.rpartition("/")[2])
    page.wait_for_function("() => document.querySelectorAll('.chart path').length > 2")
    becomes(page, "succeeded")
    expect(page.get_by_role("link", name="Try it", exact=True)).to_have_attribute("href", re.compile("/playground"))
    expect(page.get_by_role("region", name="Answers to Which city?")).to_contain_text("<script>")
    expect(page.get_by_role("link", name=re.compile(r"Try step \d+")).first).to_have_attribute(
        "href", re.compile("/playground")
    )
    expect(page.get_by_role("region", name="Attempts")).to_contain_text("succeeded")
    assert page.title() == "seen · Osora"
    assert serious(page) == []
    with page.expect_download() as download:
        page.get_by_role("button", name="Metrics").click()
    assert download.value.path().read_text().startswith("step,")


def test_a_page_moves_and_a_reload_loses_nothing_and_a_job_is_cancelled(
    opened: Opener, service: Service, tmp_path: Path
) -> None:
    job_id = on_its_way(service, tmp_path)
    page = opened(f"/jobs/{job_id}")
    before = step(page)
    comes_to(page, before + 1)
    page.reload()
    connected(page)
    expect(page.get_by_text("Files validated")).to_be_attached()  # of the events, the first are there again
    comes_to(page, before + 1)

    page.get_by_role("button", name="Pause").click()
    becomes(page, "paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Resume")).to_be_hidden()
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.get_by_role("dialog", name="Cancel slow?")).to_be_visible()
    assert serious(page) == []
    page.get_by_role("button", name="Cancel the job").click()
    becomes(page, "cancelled")


def test_a_sweep_is_a_family_with_those_that_were_given_up(opened: Opener, service: Service, tmp_path: Path) -> None:
    file = service.sdk.files.upload(dataset(tmp_path / "swept.jsonl", "Oslo"))
    hyperparameters: Any = {"n_epochs": 4, "batch_size": 8}
    osora: Any = {"learning_rate": [0.03, 0.001], "validation_share": 0.2}
    job = service.sdk.jobs.create(BASE, file["id"], suffix="family", hyperparameters=hyperparameters, osora=osora)
    assert service.sdk.jobs.wait(job["id"])["status"] == "succeeded"
    page = opened(f"/jobs/{job['id']}")
    expect(page.get_by_role("img", name="Loss of each member of the sweep by step")).to_be_visible()
    members = page.locator(".legend li")
    expect(members).to_have_count(2)
    expect(members.filter(has_text="(chosen)")).to_have_count(1)
    for rate in ("0.03", "0.001"):
        expect(members.filter(has_text=f"lr {rate} ")).to_have_count(1)
    assert serious(page) == []
    with page.expect_download() as download:
        page.get_by_role("button", name="All members of the sweep").click()
    assert {"0.03", "0.001"} <= {*re.split("[,\n]", download.value.path().read_text())}


def test_the_list_moves_and_is_filtered(opened: Opener, service: Service, tmp_path: Path) -> None:
    job_id = started(service, dataset(tmp_path / "slow.jsonl", "Oslo", rows=4000))
    try:
        steps(service, job_id)
        page = opened("/jobs")
        row = page.get_by_role("row").filter(has=page.locator(f'a[href="/jobs/{job_id}"]'))
        expect(row.locator(".progress-text")).to_contain_text(re.compile(r"[1-9][\d,]* / "))
        assert serious(page) == []
        page.get_by_label("Name or id").fill(job_id)
        expect(page).to_have_url(re.compile("text="))
        expect(page.locator(".row-link")).to_have_count(1)
        connected(page)
        page.get_by_label("Name or id").fill("no such job")
        expect(page.get_by_text("No job is like that.")).to_be_visible()
    finally:
        service.sdk.jobs.cancel(job_id)


def test_another_tenant_sees_nothing_of_it(opened: Opener, service: Service, trained: str) -> None:
    job = next(iter(service.sdk.jobs.list(1)))
    service.sdk.tenants.create("looker")
    key = service.sdk.keys.create("eyes", tenant="looker", scopes=["read"])["key"]
    page = opened("/jobs", key=key)
    expect(page.get_by_text("No jobs yet")).to_be_visible()
    page.goto(f"/jobs/{job['id']}")
    expect(page.get_by_role("alert")).to_contain_text(job["id"])
    assert trained not in page.content()


@pytest.mark.parametrize("looks", [{"dark": True}, {"phone": True}], ids=str)
def test_it_is_readable_in_the_dark_and_on_a_phone(opened: Opener, trained: str, looks: dict[str, bool]) -> None:
    for path in ("/jobs", "/jobs/new"):
        page = opened(path, **looks)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert serious(page) == []
        width = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert width == 0, f"{path} is wider than the screen"


def test_a_session_ends_with_its_key(opened: Opener, service: Service) -> None:
    made = service.sdk.keys.create("short-lived", scopes=["read", "train"])
    page = opened("/jobs/new", key=made["key"])
    service.sdk.keys.revoke(made["id"])
    page.get_by_role("link", name="Jobs", exact=True).click()
    expect(page.get_by_label("API key")).to_be_visible()
    assert json.dumps(made["key"]) not in page.content()
