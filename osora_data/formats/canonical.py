"""Which of the canonical formats a canonical row is in."""

from typing import Any

from osora_data.rows import Format


def format_of(value: dict[str, Any]) -> Format:
    """By its keys."""
    if "messages" in value:
        return "chat"
    if "prompt" in value:
        return "completion"
    return "text" if "text" in value else "preference"
