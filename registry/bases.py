"""The bases on offer, as far as they are known: from their files, or from whoever has loaded them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from osora_common.base_facts import BaseFacts
from osora_common.base_lookup import local_facts
from osora_common.unusable_base import UnusableBaseError
from registry.errors import InvalidFile, InvalidRequest
from registry.models import File
from registry.settings import Settings

_UNKNOWN = BaseFacts()
_WITHOUT_TEMPLATE = '{"prompt": "…", "completion": "…"}'


@dataclass(frozen=True)
class Offer:
    """What is known of a base, and why it cannot be used, if it cannot."""

    facts: BaseFacts = _UNKNOWN
    problem: UnusableBaseError | None = None
    longest_row: int | None = None
    """Tokens of the longest row that it trains on, if an inference server says so."""


Offers = Mapping[str, Offer]
"""By the bases' names. One that is missing here is as one of which nothing is known."""


def offers(settings: Settings, loaded: Iterable[Mapping[str, Any]]) -> dict[str, Offer]:
    """All that are configured. `loaded` is what inference servers say of theirs, which counts more than files do."""
    told = {base["name"]: base for base in loaded}
    return {name: _offer(told.get(name, {}), path) for name, path in settings.base_paths.items()}


def _offer(told: Mapping[str, Any], path: str) -> Offer:
    facts = BaseFacts(told.get("family"), told.get("has_chat_template"))
    if facts != _UNKNOWN:
        return Offer(facts, longest_row=told.get("longest_row"))
    try:
        return Offer(local_facts(path))
    except UnusableBaseError as error:
        return Offer(problem=error)


def check_upload(offers: Offers, format: str) -> None:
    """Raises InvalidFile for rows that no base here could learn from."""
    if format != "completion" and offers and all(one.facts.has_chat_template is False for one in offers.values()):
        raise InvalidFile(
            f"the file's rows are conversations, and no base here has a chat template ({', '.join(offers)})",
            next_action=f"write each line as {_WITHOUT_TEMPLATE}",
        )


def check_length(offers: Offers, base: str, max_length: int) -> None:
    """Raises InvalidRequest for rows longer than the base reads, where that is known."""
    longest = offers.get(base, Offer()).longest_row
    if longest is not None and max_length > longest:
        raise InvalidRequest(
            f"osora.max_length is {max_length}, and the base {base!r} reads at most {longest} tokens",
            param="osora.max_length",
            code="invalid_value",
            next_action=f"use 2 to {longest}, or leave it out for {longest}",
        )


def check_job(offers: Offers, base: str, file: File, param: str) -> None:
    """Raises InvalidRequest for a base that cannot be used, or cannot learn from this file."""
    offer = offers.get(base, Offer())
    if offer.problem is not None:
        raise InvalidRequest(
            offer.problem.message, param="model", code="model_unusable", next_action=offer.problem.next_action
        )
    if file.format == "completion" or offer.facts.has_chat_template is not False:
        return
    others = [name for name, other in offers.items() if other.facts.has_chat_template]
    raise InvalidRequest(
        f"file {file.id!r} holds conversations, and the base {base!r} has no chat template",
        param=param,
        code="invalid_training_data",
        next_action=f"upload lines of the form {_WITHOUT_TEMPLATE}"
        + (f", or choose a base with a chat template: {', '.join(others)}" if others else ""),
    )
