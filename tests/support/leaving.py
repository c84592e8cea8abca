"""A client that does not wait for its answer."""

import json
from http.client import HTTPConnection
from threading import Event

import httpx


def post_and_leave(client: httpx.Client, path: str, body: object, reached: Event) -> None:
    """Send a request as `client` would, and hang up as soon as it has reached whom it is for."""
    connection = HTTPConnection(client.base_url.host, client.base_url.port)
    headers = {**client.headers, "content-type": "application/json"}
    connection.request("POST", path, json.dumps(body), headers)
    assert reached.wait(60)
    connection.close()
