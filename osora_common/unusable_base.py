"""What is wrong with a base model, found before it is loaded."""


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
