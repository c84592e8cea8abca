"""What an adapter was made on, and its refusal on anything else."""

from dataclasses import dataclass

from osora_core.basis_place import VARIABLE
from osora_core.errors import IdentityMismatch

FETCH_BASIS = (
    "fetch it from the service that trained the adapter: `osora bases pull NAME`, or name the folder or URL where it "
    f"lies in {VARIABLE}; the adapter's export as LoRA needs none"
)


@dataclass(frozen=True)
class Identity:
    """What an adapter was made on: the hashes of base and basis and the basis's probe, as far as it says so.

    The probe tells after one weight whether a machine computes the same basis.
    """

    base: str | None = None
    basis: str | None = None
    probe: str | None = None


ANY = Identity()
"""What a new adapter is made on: whichever basis there is."""


def mismatch(what: str, made_on: str, this: str, next_action: str | None = None) -> IdentityMismatch:
    """The refusal of an adapter that was made on another base or basis (`what`) than `this`."""
    return IdentityMismatch(
        f"the adapter was made on {what} {made_on}, this is {what} {this}",
        next_action=next_action or f"load the {what} that the adapter names, or train it again on this one",
    )
