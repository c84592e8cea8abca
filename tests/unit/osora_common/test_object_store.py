"""The same options open the same store, whichever program opens it."""

from pathlib import Path

import obstore
import pytest
from obstore.exceptions import UnknownConfigurationKeyError

from osora_common.object_store import open_object_store

KEYS = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region": "here"}


def client_options(options: dict[str, str], url: str = "s3://bucket/prefix") -> dict[str, object]:
    store = open_object_store(url, KEYS | options if url.startswith("s3:") else options)
    return dict(getattr(store, "client_options", None) or {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("allow_http", "true"),
        ("allow_invalid_certificates", "true"),
        ("ALLOW_INVALID_CERTIFICATES", "true"),
        ("connect_timeout", "2s"),
        ("http1_only", "true"),
        ("pool_idle_timeout", "30s"),
        ("pool_max_idle_per_host", "4"),
        ("proxy_url", "http://proxy:3128"),
        ("randomize_addresses", "true"),
        ("read_timeout", "5s"),
        ("timeout", "30s"),
        ("user_agent", "osora"),
    ],
)
def test_an_option_of_the_http_client_reaches_it(name: str, value: str) -> None:
    assert name.lower() in client_options({name: value})


@pytest.mark.parametrize("name", ["endpoint", "aws_endpoint", "endpoint_url", "AWS_ENDPOINT_URL"])
def test_an_endpoint_without_tls_needs_no_further_option(name: str) -> None:
    assert "allow_http" in client_options({name: "http://minio:9000"})
    assert "allow_http" not in client_options({name: "https://minio:9000"})


def test_an_option_that_nobody_knows_is_named() -> None:
    with pytest.raises(UnknownConfigurationKeyError, match="colour"):
        open_object_store("s3://bucket", KEYS | {"colour": "blue"})


def test_a_folder_is_made_and_takes_no_options(tmp_path: Path) -> None:
    store = open_object_store(f"file://{tmp_path}/objects", {"aws_region": "here"})
    obstore.put(store, "a/b", b"c")
    assert (tmp_path / "objects" / "a" / "b").read_bytes() == b"c"
