"""OsoraConfig: what PEFT knows an OSoRA adapter by. Importing it makes the method's name known to PEFT."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from peft import PeftConfig
from peft.utils import PeftType

from osora_common.ranks import DEFAULT_RANK
from osora_core.errors import UserError
from osora_core.weights import ALL_LINEAR

NAME = "OSORA"


def _name_method() -> None:
    """Add OSORA to PEFT's enumeration of methods, which is closed to packages outside of PEFT."""
    if NAME in PeftType.__members__:
        return
    member = str.__new__(PeftType, NAME)
    member._name_ = member._value_ = NAME
    # The class forbids replacing a member, so the attribute comes before the tables that say it is one.
    setattr(PeftType, NAME, member)
    PeftType._member_names_.append(NAME)
    PeftType._member_map_[NAME] = member
    PeftType._value2member_map_[NAME] = member


_name_method()


@dataclass
class OsoraConfig(PeftConfig):
    """An OSoRA adapter (arXiv 2505.14350): r singular values and d_out outputs of every targeted weight.

    Args:
        r: how many leading singular triplets the adapter uses, or "full" for all that there are: a number once the
            adapter is made. A weight that has fewer uses what it has.
        target_modules: "all-linear" (every linear but the output head), a list of module names or of their ends, or
            a regular expression over full names.
        modules_to_save: names of modules that train whole and are saved with the adapter, such as a new head. They
            get no OSoRA.
        layers_to_transform: indices of the decoder layers to adapt; all where it is None.
        layers_pattern: the name of the list of layers, such as "layers" or "h", where PEFT does not find it itself.
        train: "both", or only the singular values "s" or the output vector "o".
        init_weights: True starts as the base; False with small random values, for tests of what an adapter changes.
        basis_rank: how many triplets the base's basis is to have. None: the default for a base of its size, or r if
            that is more. Once the adapter is made, the rank of the smallest stored basis that has all its triplets:
            that one, and whatever grows from it, is what the adapter fits.
        base_fingerprint, basis_fingerprint, basis_probe: hashes of the base's weights, of the basis, and of its first
            factors. Filled in when the adapter is made; a loaded adapter is refused on any other base or basis.
        canary: what the adapter answered when it was published, see `osora_core.canary`.
    """

    r: int | Literal["full"] = field(
        default=DEFAULT_RANK, metadata={"help": "How many leading singular triplets the adapter uses."}
    )
    target_modules: list[str] | set[str] | str | None = field(
        default=ALL_LINEAR, metadata={"help": "Modules to adapt: 'all-linear', names, or a regular expression."}
    )
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Modules that train whole and are saved with the adapter, such as a new head."}
    )
    layers_to_transform: list[int] | int | None = field(
        default=None, metadata={"help": "Indices of the decoder layers to adapt."}
    )
    layers_pattern: list[str] | str | None = field(default=None, metadata={"help": "The name of the list of layers."})
    train: Literal["both", "s", "o"] = field(
        default="both", metadata={"help": "Which vectors train: the singular values, the output vector, or both."}
    )
    init_weights: bool = field(default=True, metadata={"help": "Whether to start as the base (True) or at random."})
    basis_rank: int | None = field(default=None, metadata={"help": "How many triplets the stored basis has."})
    base_fingerprint: str | None = field(default=None, metadata={"help": "Hash of the base's weights."})
    basis_fingerprint: str | None = field(default=None, metadata={"help": "Hash of the basis."})
    basis_probe: str | None = field(default=None, metadata={"help": "Hash of the basis's first factors."})
    canary: dict[str, Any] | None = field(
        default=None, metadata={"help": "What the adapter answered when it was published."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        self.peft_type = PeftType(NAME)
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)
        if self.target_modules is None:
            self.target_modules = ALL_LINEAR
        r, most = self.r, math.inf if self.basis_rank is None else self.basis_rank
        checks = {
            "r": isinstance(r, int) and 1 <= r <= most if r != "full" else self.basis_rank is None,
            "train": self.train in ("both", "s", "o"),
            "target_modules": bool(self.target_modules),
            "layers_pattern": not self.layers_pattern or self.layers_to_transform is not None,
        }
        for name, holds in checks.items():
            if not holds:
                raise UserError(
                    f"{name} cannot be {getattr(self, name)!r}",
                    param=name,
                    next_action={
                        "r": "choose 1 or more, or 'full'"
                        if self.basis_rank is None
                        else f"choose 1 to {self.basis_rank}, or leave out basis_rank",
                        "train": "choose 'both', 's' or 'o'",
                        "target_modules": "name a module, or 'all-linear'",
                        "layers_pattern": "say which layers with layers_to_transform",
                    }[name],
                )

    def to_dict(self) -> dict[str, Any]:
        """The fields, with module names in order: equal adapters have equal files."""
        values: dict[str, Any] = super().to_dict()
        return {name: sorted(value) if isinstance(value, set) else value for name, value in values.items()}
