"""Errors of the library. Each names the offending value and the next step; none knows of HTTP."""


class OsoraCoreError(Exception):
    """Base of every error that osora_core raises on purpose.

    `code` is a stable machine-readable name; `fault` says who can mend it ("user" or "platform").
    """

    code = "core_error"
    fault = "platform"

    def __init__(self, message: str, *, param: str | None = None, next_action: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.next_action = next_action
        if next_action is not None:  # where the library is used without the service, a traceback is all there is
            self.add_note(f"Next: {next_action}.")


class UserError(OsoraCoreError, ValueError):
    """The caller's input cannot be used as it is, and to try again without a change cannot help.

    A ValueError as well, which is what callers of PEFT expect of a wrong argument.
    """

    code = "invalid_request"
    fault = "user"


class DataError(UserError):
    """A dataset row cannot be used. `line` is 1-based in the file that was given."""

    code = "invalid_data"

    def __init__(self, message: str, *, line: int, param: str | None = None, next_action: str | None = None) -> None:
        super().__init__(f"line {line}: {message}", param=param, next_action=next_action)
        self.line = line


class UnknownBase(UserError):
    """No base of that name or path can be found."""

    code = "base_not_found"


class UnsupportedBase(UserError):
    """A base that would train or answer otherwise than it should."""

    code = "unsupported_base"


class MemoryTooSmall(UserError):
    """There is not enough memory for what was asked for; a limit, or the device, would have to be larger."""

    code = "memory_too_small"


class IdentityMismatch(OsoraCoreError, ValueError):
    """An adapter was made on another base or basis; both hashes are in the message.

    A ValueError as well, like `UserError`: the adapter is a wrong argument for this base.
    """

    code = "identity_mismatch"


class CorruptArtifact(OsoraCoreError):
    """Stored bytes are not what their hash or format says they are."""

    code = "corrupt_artifact"


class OutOfSlots(OsoraCoreError):
    """Every row of the bank is in use."""

    code = "out_of_slots"
