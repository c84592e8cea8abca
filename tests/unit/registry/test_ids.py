"""Identifiers."""

import re

from registry import ids


def test_ids_sort_in_the_order_they_are_made() -> None:
    made = [ids.new_id("ftjob-") for _ in range(1000)]
    assert made == sorted(made)
    assert len({ids.short(identifier) for identifier in made}) == 1000
    assert all(re.fullmatch(r"ftjob-[0-9a-z]{27}", identifier) for identifier in made)


def test_names_of_models() -> None:
    adapter_id = ids.new_id("adp-")
    short = adapter_id[-16:]
    assert ids.model_name("osora-tiny", "acme", "support", adapter_id) == f"ft:osora-tiny:acme:support:{short}"
    assert ids.model_name("osora-tiny", "acme", None, adapter_id) == f"ft:osora-tiny:acme::{short}"
    assert ids.event_id(12) == "ftevent-12"


def test_what_may_name_an_adapter_or_a_checkpoint() -> None:
    adapter_id, job_id = ids.new_id("adp-"), ids.new_id("ftjob-")
    name = ids.checkpoint_name("org/tiny", "acme", None, job_id, 5)
    for ours in (adapter_id, ids.model_name("osora-tiny", "acme", "a", adapter_id), ids.checkpoint_id(job_id, 5), name):
        assert ids.may_be_ours(ours)
    for other in ("triage", "ft:gpt-4o-mini-2024-07-18:acme::AbC12345", "gpt-4o-mini", "org/model", ""):
        assert not ids.may_be_ours(other)
