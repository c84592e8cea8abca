"""What is said to browsers and proxies, and what the log says of a request."""

import logging
import queue
import re
from collections.abc import Callable, Iterator

import httpx
import pytest

from api.app import create_app
from api.server import Server
from registry.context import Registry
from registry.settings import Settings
from tests.integration.api.conftest import TOKEN, error_of

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

APP = "https://app.example.com"


@pytest.fixture
def line(url: str) -> Iterator[Callable[[], str]]:
    """Waits for the next line of the access log, which is written after the answer."""
    found: queue.Queue[str] = queue.Queue()
    logger = logging.getLogger("osora.access")

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.put(record.getMessage())

    listener = Listener()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(listener)
    yield lambda: found.get(timeout=60)
    logger.removeHandler(listener)
    logger.setLevel(level)


class TestByDefault:
    """As an installation is that nobody has configured."""

    @pytest.mark.parametrize("path", ["/health", "/jobs", "/nothing", "/docs", "/openapi.json"])
    def test_every_answer_has_the_security_headers(self, client: httpx.Client, path: str) -> None:
        for response in (client.get(path), httpx.get(client.base_url.join(path)), client.options(path)):
            assert response.headers["x-content-type-options"] == "nosniff"
            assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
            assert response.headers["referrer-policy"] == "no-referrer"
            assert response.headers["cache-control"] == "no-store"
            assert {"server", "strict-transport-security", "access-control-allow-origin"}.isdisjoint(response.headers)

    def test_the_page_of_the_docs_may_run_its_own_script_alone(self, anonymous: httpx.Client) -> None:
        policy = anonymous.get("/docs").headers["content-security-policy"]
        assert re.search(r"script-src 'self' 'sha256-[A-Za-z0-9+/]{43}='", policy)

    def test_options_names_the_methods(self, client: httpx.Client) -> None:
        response = client.options("/jobs")
        assert (response.status_code, response.headers["allow"]) == (204, "GET, HEAD, OPTIONS, POST")

    def test_nobody_is_believed_about_where_a_request_comes_from(
        self, anonymous: httpx.Client, line: Callable[[], str]
    ) -> None:
        anonymous.get("/health", headers={"x-forwarded-for": "203.0.113.7", "x-forwarded-proto": "https"})
        assert line().startswith("127.0.0.1 GET /health 200 ")

    def test_internal_routes_are_not_there_through_a_proxy(self, anonymous: httpx.Client) -> None:
        headers = {"authorization": f"Bearer {TOKEN}", "x-forwarded-for": "127.0.0.1"}
        error_of(anonymous.get("/internal/objects/files/x", headers=headers), 404)


class TestTheLog:
    def test_it_has_nothing_of_query_headers_or_body(self, client: httpx.Client, line: Callable[[], str]) -> None:
        client.get("/jobs?metadata[secret]=swordfish", headers={"user-agent": "swordfish"})
        client.post("/jobs", json={"swordfish": "swordfish"})
        client.post("/jobs", content=b'{"swordfish\\ud83d": 1}', headers={"content-type": "application/json"})
        lines = [line() for _ in range(3)]
        assert "swordfish" not in "".join(lines)
        assert re.fullmatch(
            r"127\.0\.0\.1 GET /jobs 200 \d+ms req-[0-9a-f]{32} tenant=tenant-\w+ key=key-\w+", lines[0]
        )

    def test_a_client_writes_no_line_of_its_own(self, client: httpx.Client, line: Callable[[], str]) -> None:
        client.get("/a%0d%0ab%20c%1b[31m" + "x" * 5000)
        written = line()
        assert written.startswith("127.0.0.1 GET /a\\x0d\\x0ab\\x20c\\x1b[31mxxx")
        assert len(written) < 500


class TestConfigured:
    """Behind a proxy, for pages of one origin, under one name, without documents."""

    @pytest.fixture
    def server(self, settings: Settings, registry: Registry) -> Server:
        changes = {
            "trusted_proxies": "127.0.0.0/8",
            "cors_origins": APP,
            "allowed_hosts": "127.0.0.1,*.example.com",
            "docs": False,
            "internal_networks": "10.0.0.0/8",
        }
        changed = settings.model_copy(update=changes)
        return Server(create_app(changed), changed)

    def test_the_proxy_is_believed(self, anonymous: httpx.Client, line: Callable[[], str]) -> None:
        headers = {"x-forwarded-for": "6.6.6.6, 203.0.113.7", "x-forwarded-proto": "https"}
        response = anonymous.get("/health", headers=headers)
        assert line().startswith("203.0.113.7 ")
        assert response.headers["strict-transport-security"] == "max-age=31536000"
        anonymous.get("/health", headers={"x-forwarded-for": "swordfish"})
        assert line().startswith("- GET "), "what is no address is not written"

    def test_pages_of_its_origin_may_call(self, client: httpx.Client) -> None:
        asked = {"origin": APP, "access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}
        preflight = httpx.options(client.base_url.join("/jobs"), headers=asked)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == APP
        for path in ("/jobs", "/nothing"):
            response = client.get(path, headers={"origin": APP})
            assert response.headers["access-control-allow-origin"] == APP
            assert "access-control-allow-credentials" not in response.headers
            assert "x-request-id" in response.headers["access-control-expose-headers"]

    def test_others_may_not(self, client: httpx.Client) -> None:
        response = client.get("/jobs", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in response.headers

    def test_other_names_are_refused(self, client: httpx.Client) -> None:
        assert error_of(client.get("/jobs", headers={"host": "evil.example:80"}), 400)["code"] == "unknown_host"
        assert client.get("/jobs", headers={"host": "api.example.com:80"}).status_code == 200
        assert client.get("/health", headers={"host": "evil.example"}).status_code == 200

    @pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/docs/swagger-ui.css"])
    def test_the_documents_are_not_there(self, client: httpx.Client, anonymous: httpx.Client, path: str) -> None:
        error_of(anonymous.get(path), 401)
        error_of(client.get(path), 404)

    def test_internal_routes_are_not_there_from_elsewhere(self, anonymous: httpx.Client) -> None:
        headers = {"authorization": f"Bearer {TOKEN}"}
        error_of(anonymous.get("/internal/objects/files/x", headers=headers), 404)
