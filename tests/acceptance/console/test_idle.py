"""A page on which nothing happens, and a list that is very long."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from osora import Osora
from tests.acceptance.conftest import BASE, Service, dataset
from tests.acceptance.console.conftest import Opener
from tests.support.browser import connected

MANY = 10_000
LOOKS = 3


def tenant_of(service: Service, name: str) -> tuple[str, str]:
    """A new tenant's id and a key of it."""
    tenant = service.sdk.tenants.create(name)["id"]
    return tenant, service.sdk.keys.create("eyes", tenant=name, scopes=["read", "train"])["key"]


def ended_job(service: Service, key: str, path: Path) -> str:
    with Osora(service.url, key) as sdk:
        job = sdk.jobs.create(BASE, sdk.files.upload(dataset(path, "Oslo"))["id"], suffix="ended")
        sdk.jobs.cancel(job["id"])
        sdk.jobs.wait(job["id"])
    return str(job["id"])


def requests_of(service: Service, tenant: str) -> int:
    """How many requests of a tenant the API has answered so far."""
    return (service.data_dir / "logs" / "api.log").read_text().count(f" tenant={tenant} ")


def payloads(page: Page) -> list[str]:
    """What goes through the sockets of a page from its next load on, but for the pings of the transport."""
    found: list[str] = []

    def note(frame: str | bytes) -> None:
        text = frame if isinstance(frame, str) else frame.decode(errors="replace")
        if text not in ("2", "3"):
            found.append(text)

    def listen(socket: object) -> None:
        socket.on("framesent", note)  # type: ignore[attr-defined]
        socket.on("framereceived", note)  # type: ignore[attr-defined]

    page.on("websocket", listen)
    page.reload()
    connected(page)
    return found


def look(page: Page) -> None:
    """Wait until a page of the system that follows has looked once more, which it does every three seconds."""
    page.evaluate("() => document.querySelector('.checks').setAttribute('data-old', '1')")
    expect(page.locator("[data-old]")).to_have_count(0)


def test_a_page_on_which_nothing_happens_asks_for_nothing(opened: Opener, service: Service, tmp_path: Path) -> None:
    tenant, key = tenant_of(service, "idler")
    job_id = ended_job(service, key, tmp_path / "ended.jsonl")
    watching = opened("/system")
    watching.get_by_role("switch", name="Follow").click()
    pages = [opened(path, key=key) for path in (f"/jobs/{job_id}", "/jobs", "/adapters", "/usage")]
    said = [payloads(page) for page in pages]
    expect(pages[0].locator(".state")).to_have_text("cancelled")
    expect(pages[1].locator(".row-link")).to_have_count(1)

    counted = [(requests_of(service, tenant), *map(len, said))]
    assert counted[0][0] > 0
    assert all(counted[0][1:])
    for _ in range(5 * LOOKS):  # what a page asks for when it opens may take a while to be answered
        look(watching)
        counted.append((requests_of(service, tenant), *map(len, said)))
        if counted[-1 - LOOKS :] == [counted[-1]] * (LOOKS + 1):
            break
    else:
        pytest.fail(f"requests and messages of each page, whenever another page looked again: {counted}")


@pytest.fixture
def crowd(service: Service, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A key whose tenant has ten thousand jobs, and the oldest one's id."""
    tenant, key = tenant_of(service, "crowd")
    oldest = ended_job(service, key, tmp_path / "ended.jsonl")
    database = sqlite3.connect(service.data_dir / "osora.db", timeout=30)
    database.row_factory = sqlite3.Row
    row = dict(database.execute("SELECT * FROM jobs WHERE id = ?", [oldest]).fetchone())
    insert = f"INSERT INTO jobs ({', '.join(row)}) VALUES ({', '.join(f':{name}' for name in row)})"
    others = [
        row | {"id": f"ftjob-crowd{number:06}", "created_at": row["created_at"] + number} for number in range(1, MANY)
    ]
    with database:
        database.executemany(insert, others)
    try:
        yield key, oldest
    finally:
        with database:
            database.execute("DELETE FROM jobs WHERE tenant_id = ? AND id <> ?", [tenant, oldest])
        database.close()


def test_ten_thousand_jobs_are_scrolled_to_the_last_and_few_of_them_drawn(
    opened: Opener, crowd: tuple[str, str]
) -> None:
    key, oldest = crowd
    page = opened("/jobs", key=key)
    last = page.locator(f'a[href="/jobs/{oldest}"]')
    most, deepest = 0, 0
    for _ in range(MANY):  # a page of rows may grow more than once, as it is drawn
        drawn, height = page.evaluate(
            """() => {
                const middle = document.querySelector('.rows .q-table__middle');
                middle.scrollTop = middle.scrollHeight;
                return [middle.querySelectorAll('tbody tr').length, middle.scrollHeight];
            }"""
        )
        most, deepest = max(most, drawn), max(deepest, height)
        if last.count():
            break
        # Further rows have come once there is more to scroll through.
        page.wait_for_function(
            """([height, last]) => document.querySelector('.rows .q-table__middle').scrollHeight > height
                || document.querySelector(last)""",
            arg=[height, f'a[href="/jobs/{oldest}"]'],
        )
    expect(last).to_be_visible()
    assert deepest > MANY * 30  # all of them are there to be scrolled through
    assert most < 300, f"{most} rows were drawn at once"


def test_a_job_that_was_made_elsewhere_is_there_after_another_look(
    opened: Opener, service: Service, tmp_path: Path
) -> None:
    _, key = tenant_of(service, "elsewhere")
    page = opened("/jobs", key=key)
    expect(page.get_by_text("No jobs yet")).to_be_visible()
    job_id = ended_job(service, key, tmp_path / "ended.jsonl")
    page.get_by_role("button", name="Look again").click()
    row = page.get_by_role("row").filter(has=page.locator(f'a[href="/jobs/{job_id}"]'))
    expect(row).to_contain_text("cancelled")
    expect(page.get_by_text("No jobs yet")).to_have_count(0)


def test_on_a_phone_every_page_is_in_sight(opened: Opener) -> None:
    page = opened("/jobs", phone=True)
    links = page.get_by_role("navigation", name="Pages").get_by_role("link")
    expect(links).to_have_count(7)
    for link in links.all():
        box = link.bounding_box()
        assert box is not None
        assert box["x"] >= 0, link.inner_text()
        assert box["x"] + box["width"] <= 390, link.inner_text()
        assert box["height"] >= 24
