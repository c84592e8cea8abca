"""The names and ids that a service knows: to complete what is being typed, and to suggest what was meant."""

import contextlib
import re
import threading
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, Literal, TypeVar

from osora.errors import OsoraAPIError
from osora.sdk import Osora

Kind = Literal["adapter", "alias", "base", "endpoint", "file", "job", "key", "model", "tenant"]
T = TypeVar("T")

# How long somebody who presses the tab key, or has mistyped, is kept waiting.
_PATIENCE_SECONDS = 2.0
_MOST = 100
_KINDS: dict[str, Kind] = {
    "adapter_not_found": "adapter",
    "alias_not_found": "alias",
    "base_not_found": "base",
    "file_not_found": "file",
    "job_not_found": "job",
    "model_not_found": "model",
    "tenant_not_found": "tenant",
    "webhook_endpoint_not_found": "endpoint",
}


def known(osora: Osora, kind: Kind) -> dict[str, str]:
    """The newest names and ids of a kind, each with a word about it."""
    if kind == "adapter":
        found = list(osora.adapters.list(limit=_MOST))
        return {a["id"]: a["name"] for a in found} | {a["name"]: a["id"] for a in found} | known(osora, "alias")
    if kind == "alias":
        return {a["name"]: " ".join(a["targets"]) for a in osora.aliases.list(limit=_MOST)}
    if kind == "base":
        return {base["name"]: "base" for base in osora.bases.list()}
    if kind == "endpoint":
        return {e["id"]: e["url"] for e in osora.webhooks.list(limit=_MOST)}
    if kind == "file":
        return {f["id"]: f["filename"] for f in osora.files.list(limit=_MOST)}
    if kind == "job":
        return {j["id"]: _about(j) for j in osora.jobs.list(limit=_MOST)}
    if kind == "key":
        return {k["id"]: k["name"] for k in osora.keys.list(limit=_MOST) if not k.get("revoked_at")}
    if kind == "tenant":
        return {t["name"]: t["id"] for t in osora.tenants.list(limit=_MOST)}
    return known(osora, "adapter") | known(osora, "base")


def completing(kind: Kind) -> Callable[[str], list[tuple[str, str]]]:
    """What completes an argument of this kind; nothing while the service is away or slow."""

    def complete(incomplete: str) -> list[tuple[str, str]]:
        names = _patiently(lambda: _ask(kind)) or {}
        # A name is long, and shells part words at its colons: ids come first, names to whoever begins one.
        is_name = incomplete.startswith("ft")
        return [
            (name, about)
            for name, about in names.items()
            if name.startswith(incomplete) and (is_name or not name.startswith("ft:"))
        ]

    return complete


def suggestion(error: OsoraAPIError) -> str | None:
    """What was probably meant by a name that the service does not know: `osora-tiny`, or None."""
    kind = _KINDS.get(error.code or "")
    given = re.search(r"'([^']+)'", error.message)
    if kind is None or given is None or error.status != 404:
        return None
    return nearest(given[1], _patiently(lambda: _ask(kind)) or {})


def nearest(given: str, names: dict[str, str] | Iterable[str]) -> str | None:
    """The name most like the one given; an adapter is also meant by the suffix in its name, the newest first."""
    for name in names:
        if name.startswith("ft:") and given in name.split(":"):
            return name
    close = get_close_matches(given, [name for name in names if name != given], n=1, cutoff=0.7)
    return close[0] if close else None


def _ask(kind: Kind) -> dict[str, str]:
    with Osora() as osora:
        return known(osora, kind)


def _patiently(ask: Callable[[], T]) -> T | None:
    """What it returns, unless that takes long or fails."""
    answers: list[T] = []

    def run() -> None:
        with contextlib.suppress(Exception):  # whatever it is, nobody has asked for this
            answers.append(ask())

    asking = threading.Thread(target=run, daemon=True)
    asking.start()
    asking.join(_PATIENCE_SECONDS)
    return answers[0] if answers else None


def _about(job: Any) -> str:
    suffix = job.get("user_provided_suffix")
    return f"{job['status']} {suffix}" if suffix else str(job["status"])
