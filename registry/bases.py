"""The bases on offer, as far as they are known: from their files, or from whoever has loaded them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from osora_common.base_facts import BaseFacts
from osora_common.base_lookup import local_facts
from osora_common.ranks import Rank, Ranks, installed_rank
from osora_common.unusable_base import UnusableBaseError
from registry.errors import InvalidFile, InvalidRequest
from registry.models import File
from registry.settings import Settings

_UNKNOWN = BaseFacts()
_TEXTS = ("completion", "text")
"""Formats that need no chat template."""
_WITHOUT_TEMPLATE = '{"prompt": "…", "completion": "…"}'


@dataclass(frozen=True)
class Offer:
    """What is known of a base, and why it cannot be used, if it cannot."""

    facts: BaseFacts = _UNKNOWN
    problem: UnusableBaseError | None = None
    longest_row: int | None = None
    """Tokens of the longest row that it trains on, if an inference server says so."""
    spans: Mapping[str, Sequence[Sequence[int]]] | None = None
    """By the name of a target module: ranks and outputs, `[rank, d_out]`, of all weights of that name; likewise."""

    size: int | None = None
    """Values of its weights; likewise."""
    rank: int | None = None
    """Of its basis; likewise."""
    full_rank: int | None = None
    """The largest full rank of its weights; likewise."""

    def parameters(self, rank: int, modules: Iterable[str] | None) -> int | None:
        """Of an adapter of this rank of these modules, or of all of them, exactly; None if that is not known."""
        if self.spans is None:
            return None
        spans = (span for name in (self.spans if modules is None else modules) for span in self.spans[name])
        return sum(min(rank, most) + outputs for most, outputs in spans)


Offers = Mapping[str, Offer]
"""By the bases' names. One that is missing here is as one of which nothing is known."""


def offers(paths: Mapping[str, str], loaded: Iterable[Mapping[str, Any]]) -> dict[str, Offer]:
    """All that are on offer, where `paths` says what each is loaded from.

    `loaded` is what inference servers say of theirs, which counts more than files do.
    """
    told = {base["name"]: base for base in loaded}
    return {name: _offer(told.get(name, {}), path) for name, path in paths.items()}


def _offer(told: Mapping[str, Any], path: str) -> Offer:
    facts = BaseFacts(told.get("family"), told.get("has_chat_template"))
    if facts != _UNKNOWN:
        basis = told.get("basis") or {}
        return Offer(
            facts,
            longest_row=told.get("longest_row"),
            spans=basis.get("spans"),
            size=told.get("parameters"),
            rank=basis.get("rank"),
            full_rank=basis.get("full_rank"),
        )
    try:
        return Offer(local_facts(path))
    except UnusableBaseError as error:
        return Offer(problem=error)


def check_upload(offers: Offers, format: str) -> None:
    """Raises InvalidFile for rows that no base here could learn from."""
    if format not in _TEXTS and offers and all(one.facts.has_chat_template is False for one in offers.values()):
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


def check_modules(offers: Offers, base: str, modules: Iterable[str]) -> None:
    """Raises InvalidRequest for a module that the base has not, where that is known."""
    spans = offers.get(base, Offer()).spans
    unknown = sorted(set(modules) - spans.keys()) if spans is not None else []
    if spans is not None and unknown:
        raise InvalidRequest(
            f"the base {base!r} has no module {unknown[0]!r}",
            param="osora.target_modules",
            code="invalid_value",
            next_action=f"choose from {', '.join(spans)}",
        )


def ranks(offers: Offers, base: str, targets: str | Collection[str] | None, settings: Settings) -> Ranks:
    """What ranks an adapter of these modules can have, as far as that is known."""
    offer = offers.get(base, Offer())
    held, full = offer.rank, offer.full_rank
    if held is None and (installed := installed_rank(settings.basis_rank)) != "full":
        held = installed
    if isinstance(targets, str) or targets is None or offer.spans is None or offer.rank is None:
        return Ranks(offer.size, held, full)
    # A span tells no more than the basis has.
    most = max((rank for name in targets for rank, _ in offer.spans.get(name, ())), default=offer.rank)
    return Ranks(offer.size, held, most if most < offer.rank else full)


def check_rank(ranks: Ranks, asked: Rank | None) -> None:
    """Raises InvalidRequest for a rank that an adapter cannot have, where that is known."""
    refusal = ranks.refusal(asked)
    if refusal is not None:
        raise InvalidRequest(refusal[0], param="osora.rank", code="invalid_value", next_action=refusal[1])


def check_job(offers: Offers, base: str, file: File, param: str) -> None:
    """Raises InvalidRequest for a base that cannot be used, or cannot learn from this file."""
    offer = offers.get(base, Offer())
    if offer.problem is not None:
        raise InvalidRequest(
            offer.problem.message, param="model", code="model_unusable", next_action=offer.problem.next_action
        )
    if file.format in _TEXTS or offer.facts.has_chat_template is not False:
        return
    others = [name for name, other in offers.items() if other.facts.has_chat_template]
    raise InvalidRequest(
        f"file {file.id!r} holds conversations, and the base {base!r} has no chat template",
        param=param,
        code="invalid_training_data",
        next_action=f"upload lines of the form {_WITHOUT_TEMPLATE}"
        + (f", or choose a base with a chat template: {', '.join(others)}" if others else ""),
    )
