"""What a check has found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One item: what there is to say of it and, only where something is wrong, the next step."""

    item: str
    message: str
    next_action: str | None = None

    @property
    def ok(self) -> bool:
        return self.next_action is None


@dataclass(frozen=True)
class AddedBase(Finding):
    """A base that was added to the running service; `source`: what it is loaded from at the next start."""

    source: str = ""
