"""What went wrong, in the API's own sentences."""

from osora.errors import OsoraAPIError, OsoraError, OsoraUsageError


def sentence(error: OsoraError) -> str:
    """What it says and what to do next, in a line."""
    message, next_action = parts(error)
    return f"{_ended(message)} Next: {_ended(next_action)}" if next_action else _ended(message)


def parts(error: OsoraError) -> tuple[str, str | None]:
    """What it says, and what to do next."""
    if isinstance(error, OsoraAPIError):
        return error.message, error.next_action
    return str(error), error.next_action if isinstance(error, OsoraUsageError) else None


def _ended(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
