"""How an object store is opened: from its URL and the options in `OSORA_OBJECT_STORE_OPTIONS`."""

from collections.abc import Mapping
from typing import Any

from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from osora_common.secret_values import check_secret, is_local

# obstore takes these apart from a store's own configuration, and panics over one that it finds there.
_CLIENT_OPTIONS = frozenset(
    {
        "allow_http", "allow_invalid_certificates", "connect_timeout", "default_content_type", "http1_only",
        "http2_keep_alive_interval", "http2_keep_alive_timeout", "http2_keep_alive_while_idle", "http2_max_frame_size",
        "http2_only", "pool_idle_timeout", "pool_max_idle_per_host", "proxy_ca_certificate", "proxy_excludes",
        "proxy_url", "randomize_addresses", "read_timeout", "root_certificate", "timeout", "user_agent",
    }
)  # fmt: skip


def open_object_store(url: str, options: Mapping[str, str]) -> ObjectStore:
    """The store behind a `file:`, `memory:`, `s3:`, `gs:` or `az:` URL. Nothing is contacted yet.

    `options` are obstore's names for a cloud store's configuration and for its HTTP client, in any case. Files and
    memory have none. An `http://` endpoint needs no `allow_http` beside it.

    Raises obstore's BaseError if the URL or an option is none that it knows.
    """
    # Any, because obstore's stubs have one overload per cloud and ours is only known at run time.
    arguments: dict[str, Any]
    if url.startswith("file:"):
        # Not automatic_cleanup: removing an empty folder can fail a put that is just about to use it.
        arguments = {"mkdir": True}
    elif url.startswith("memory:"):
        arguments = {}
    else:
        config = {name.lower(): value for name, value in options.items()}
        client = {name: config.pop(name) for name in list(config) if name in _CLIENT_OPTIONS}
        if any("endpoint" in name and value.startswith("http://") for name, value in config.items()):
            client.setdefault("allow_http", "true")
        arguments = {"config": config, "client_options": client}
    return from_url(url, **arguments)


def open_http_store(url: str, token: str) -> ObjectStore:
    """The objects below a plain HTTP address that asks for a bearer token; they can only be read."""
    headers = {"authorization": f"Bearer {token}"}
    return from_url(url, client_options={"allow_http": True, "default_headers": headers})


def check_options(url: str, options: Mapping[str, str]) -> None:
    """Raises ValueError, in one sentence and without their values, if a cloud store cannot be opened with `options`.

    A secret among them that everybody knows is refused as well, unless the store is on this machine.
    """
    if url.partition(":")[0] in ("file", "memory", "db", "http", "https"):
        return
    endpoint = next((value for name, value in options.items() if name.lower().endswith("endpoint")), "")
    for name, value in options.items():
        if ("secret" in name.lower() or name.lower().endswith(("password", "account_key"))) and not is_local(endpoint):
            check_secret(f"{name} in OSORA_OBJECT_STORE_OPTIONS", value)
    try:
        open_object_store(url, options)
    except (BaseError, ValueError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        for value in sorted(options.values(), key=len, reverse=True):
            reason = reason.replace(value, "…") if value else reason
        raise ValueError(f"OSORA_OBJECT_STORE_OPTIONS cannot be used for a store of this kind: {reason}") from error
