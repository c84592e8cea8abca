"""What is wrong with a base model, found before it is loaded."""

from pathlib import Path


class UnusableBaseError(Exception):
    """A base that cannot be loaded as it is. The message names it and the reason, `next_action` the way out."""

    def __init__(self, message: str, next_action: str) -> None:
        super().__init__(message)
        self.message = message
        self.next_action = next_action


class NoSuchBaseError(UnusableBaseError):
    """No base of that name or path is found."""


class UnsupportedFamilyError(UnusableBaseError):
    """A model of a kind that is not trained or served here."""


def unreadable(base: str, path: Path, error: Exception) -> UnusableBaseError:
    """For a file of a base that the system does not let be read, or that is not the JSON that it should be."""
    next_action = "copy or download the file again"
    if isinstance(error, OSError):
        reason, next_action = error.strerror, f"correct its permissions, or {next_action}"
    elif isinstance(error, RecursionError):
        reason = "it is nested too deeply"
    else:
        reason = f"it is not JSON: {error}"
    return UnusableBaseError(f"the base model {base!r} cannot be loaded: {path}: {reason}", next_action)
