"""`make screenshots`: takes the pictures in docs/screenshots anew: every page of the console, light, dark, on a phone.

It runs an installation of its own in a temporary folder, trains there, and looks at it with a browser.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

from benchmarks.service import serving
from osora import Osora
from osora.serve.console_link import issue
from tests.support.browser import connected, launched, watched

FOLDER = Path(__file__).with_name("screenshots")
LOOKS: dict[str, dict[str, bool]] = {"light": {}, "dark": {"dark": True}, "phone": {"phone": True}}
# So much at most may a picture weigh in the repository, and all of them.
MOST_BYTES = 200_000
MOST_BYTES_OF_ALL = 3_000_000
# A picture of everything would be a long one; what is below is like what is above.
_MOST_HEIGHT = {"light": 1000, "dark": 1000, "phone": 1200}

_ASKED = ("Where is my parcel?", "I was charged twice.", "The app does not open.", "How do I change my address?")
_ANSWERS = ("shipping", "billing", "technical", "account")


def rows(count: int) -> bytes:
    """Tickets and the queues that they belong in."""
    lines = [
        {"messages": [{"role": "user", "content": f"{_ASKED[n % 4]} (ticket {n})"},
                      {"role": "assistant", "content": _ANSWERS[n % 4]}]}
        for n in range(count)
    ]  # fmt: skip
    return "\n".join(map(json.dumps, lines)).encode()


def furnish(sdk: Osora) -> dict[str, str]:
    """Jobs to look at: the paths of all pages by their pictures' names."""
    file = sdk.files.upload(rows(160), filename="tickets.jsonl")
    short: Any = {"n_epochs": 3, "batch_size": 8}
    told: Any = {"sample_prompts": [*_ASKED[:2]], "validation_share": 0.2}
    job = sdk.jobs.create("osora-tiny", file["id"], suffix="tickets", hyperparameters=short, osora=told)
    swept: Any = {"learning_rate": "sweep", "validation_share": 0.2}
    sweep = sdk.jobs.create("osora-tiny", file["id"], suffix="rates", hyperparameters=short, osora=swept)
    for one in (job, sweep):
        sdk.jobs.wait(one["id"])
    long: Any = {"n_epochs": 50, "batch_size": 1}
    running = sdk.jobs.create("osora-tiny", file["id"], suffix="nightly", hyperparameters=long, osora=told)
    for event in sdk.jobs.events(running["id"]):
        if ((event.get("data") or {}).get("step") or 0) >= 8:  # of quick steps, not each has an event
            break
    return {
        "jobs": "/jobs",
        "new-job": f"/jobs/new?file={file['id']}",
        "job": f"/jobs/{job['id']}",
        "sweep": f"/jobs/{sweep['id']}",
        **_about_models(sdk, job["id"], file["id"]),
    }


def _about_models(sdk: Osora, job_id: str, file_id: str) -> dict[str, str]:
    """An adapter with a canary, and the pages that ask it."""
    adapter = sdk.adapters.get(str(sdk.jobs.get(job_id)["osora"]["adapter_id"]))
    sdk.aliases.set("tickets", {adapter["name"]: 95, "osora-tiny": 5})
    return {
        "adapters": "/adapters",
        "adapter": f"/adapters/{adapter['id']}",
        "playground": f"/playground?model={adapter['id']}",
        "compare": f"/compare?right={adapter['id']}&file={file_id}",
        "usage": "/usage",
        "system": "/system",
    }


def _ask(page: Page) -> None:
    page.get_by_label("Prompt", exact=True).fill(_ASKED[1])
    page.get_by_role("button", name="Send").click()
    for column in page.locator("section.answer").all():
        column.get_by_text("tokens/s").wait_for()
    page.locator("section.answer").last.locator(".token").first.hover()


def _compare(page: Page) -> None:
    page.get_by_label("Rows at most").fill("12")
    page.get_by_role("button", name="Compare").click()
    page.get_by_text("12 of 12 rows").wait_for()


def _estimated(page: Page) -> None:
    page.get_by_text("it would take", exact=True).wait_for()


def _drawn(page: Page) -> None:
    page.locator(".event").first.wait_for()
    page.wait_for_function("() => document.querySelectorAll('.chart path').length > 10")


_FIRST: dict[str, Callable[[Page], None]] = {
    "new-job": _estimated,
    "job": _drawn,
    "sweep": _drawn,
    "playground": _ask,
    "compare": _compare,
}
"""What is done on a page, or waited for, before its picture."""


def take(browser: Browser, folder: Path, console: str, paths: dict[str, str]) -> None:
    """Every page in every look."""
    for look, how in LOOKS.items():
        with watched(browser, console, **how) as seen:
            picture(seen.page, "/sign-in", f"sign-in-{look}", look)
            seen.page.goto(issue(folder, console))
            for name, path in paths.items():
                picture(seen.page, path, f"{name}-{look}", look)


def picture(page: Page, path: str, name: str, look: str) -> None:
    """One of them."""
    page.goto(path)
    connected(page)
    if act := _FIRST.get(name.rpartition("-")[0]):
        act(page)
    page.wait_for_timeout(1500)  # a live page has come to rest; nobody waits for a picture
    height = min(page.evaluate("() => document.documentElement.scrollHeight"), _MOST_HEIGHT[look])
    width = page.viewport_size["width"] if page.viewport_size else 1280
    clip: Any = {"x": 0, "y": 0, "width": width, "height": height}
    page.screenshot(path=FOLDER / f"{name}.png", full_page=True, clip=clip)


def main() -> None:
    """The command."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="osora-pictures-") as folder:
        place = Path(folder)
        with serving(place) as service, Osora(service.url, service.key) as sdk, launched() as browser:
            console = json.loads((place / "run" / "serve.json").read_text())["console_url"]
            take(browser, place, console, furnish(sdk))
    sizes = {path.name: path.stat().st_size for path in FOLDER.glob("*.png")}
    too_large = {name: size for name, size in sizes.items() if size > MOST_BYTES}
    print(f"{len(sizes)} pictures, {sum(sizes.values()) / 1e6:.2f} MB, in {FOLDER}")
    if too_large or sum(sizes.values()) > MOST_BYTES_OF_ALL:
        sys.exit(f"too large for the repository: {too_large or 'all of them together'}")


if __name__ == "__main__":
    main()
