"""Sums for people."""

from datetime import date
from typing import Any

from console.usage import by_day, by_key, quotas, short


def row(**said: Any) -> Any:
    return {"prompt_tokens": 10, "completion_tokens": 5, "trained_tokens": 0, "compute_seconds": 0.5, **said}


def test_days_without_use_are_there_and_rows_of_a_day_are_summed() -> None:
    found = by_day([row(day="2026-11-27"), row(day="2026-11-27"), row(day="2026-11-25")], date(2026, 11, 28), 4)
    assert found.days == ["2026-11-25", "2026-11-26", "2026-11-27", "2026-11-28"]
    assert found.sums["prompt_tokens"] == [10, 0, 20, 0]
    assert found.total("compute_seconds") == 1.5
    assert not found.is_empty
    assert by_day([], date(2026, 11, 28), 4).is_empty


def test_keys_are_told_apart_by_tenant_and_the_busiest_is_first() -> None:
    rows = [
        row(key_id="key-1", key_name="ci", tenant="acme"),
        row(key_id="key-2", key_name="ci", tenant="other", trained_tokens=100),
        row(key_id="key-1", key_name="ci", tenant="acme"),
    ]
    found = by_key(rows)
    assert [(one["tenant"], one["prompt_tokens"]) for one in found] == [("other", 10), ("acme", 20)]


def test_quotas_say_what_is_taken_and_warn_before_the_end() -> None:
    limits = {
        "limits": {"queued_jobs": 10, "stored_bytes": "unlimited", "requests_per_minute": 60, "priority": "normal",
                   "tokens_per_month": 1000, "concurrent_jobs": 0},
        "used": {"queued_jobs": 8, "stored_bytes": 12345, "tokens_per_month": 2000, "concurrent_jobs": 0},
    }  # fmt: skip
    found = {quota.name: quota for quota in quotas(limits)}
    assert (found["queued_jobs"].text, found["queued_jobs"].level) == ("8 of 10", "warn")
    assert (found["tokens_per_month"].share, found["tokens_per_month"].level) == (1.0, "bad")
    assert found["concurrent_jobs"].level == "bad", "none may run"
    assert (found["stored_bytes"].share, found["stored_bytes"].text) == (None, "12.1 KiB, no limit")
    assert (found["requests_per_minute"].text, found["priority"].text) == ("60", "normal")
    assert [quota.share is None for quota in quotas(limits)] == [False] * 3 + [True] * 3


def test_numbers_are_written_shortly() -> None:
    assert [short(number) for number in (9, 9999, 12345, 1_234_567)] == ["9", "9,999", "12.3 k", "1.23 M"]
