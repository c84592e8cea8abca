"""The table of what is refused: complete, and the same in the documents."""

import re
from pathlib import Path

import openai
from starlette.routing import Match

from api.app import create_app
from api.openai.refusals import REFUSALS, router
from registry.settings import Settings

ROOT = Path(__file__).parents[4]
RESOURCES = Path(openai.__file__).parent / "resources"
# Every request of the client's is made with one of these and the path as the first argument.
REQUEST = re.compile(r'self\._(post|get|delete|put|patch|get_api_list)\(\s*(?:path_template\(\s*)?f?"(/[^"?]*)')

# To be taken out with what makes each of them.
COMING = (
    "/v1/webhook_endpoints",
    "/v1/webhook_event_types",
)


def requests() -> set[tuple[str, str]]:
    """Method and path of all that the client can ask for."""
    found: set[tuple[str, str]] = set()
    for module in RESOURCES.rglob("*.py"):
        for verb, path in REQUEST.findall(module.read_text()):
            found.add(("GET" if verb == "get_api_list" else verb.upper(), f"/v1{path}"))
    return found


def test_the_documents_have_the_same_table() -> None:
    text = (ROOT / "docs/migrate-from-openai.md").read_text()
    rows = re.findall(r"^\| ((?:`/v1/[a-z_/]+`(?:, )?)+) \| (.*) \|$", text, re.MULTILINE)
    said = {path.removeprefix("/v1/"): reason for paths, reason in rows for path in re.findall(r"`(.*?)`", paths)}
    assert said == REFUSALS


def test_all_that_the_client_can_ask_for_is_there_or_in_the_table() -> None:
    asked = requests()
    assert len(asked) > 150, "the client writes its requests in another way"
    unknown = {(method, path) for method, path in asked if not is_known(method, path)}
    assert {path for _, path in unknown if not path.startswith(COMING)} == set()


def is_known(method: str, path: str) -> bool:
    return any(
        route.matches({"type": "http", "method": method, "path": path, "root_path": ""})[0] is Match.FULL
        for route in ROUTES
    )


ROUTES = [*create_app(Settings()).routes, *router.routes]
