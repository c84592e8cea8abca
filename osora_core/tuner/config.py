"""OsoraConfig: what PEFT knows an OSoRA adapter by. Importing it makes the method's name known to PEFT."""

from dataclasses import dataclass, field
from typing import Any, Literal

from peft import PeftConfig
from peft.utils import PeftType

from osora_core.adapter import MIXED_VERSION
from osora_core.errors import UserError
from osora_core.weights import ALL_LINEAR

NAME = "OSORA"
# What the service computes its bases with: adapters of lower ranks share it.
BASIS_RANK = 128


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
        r: how many leading singular triplets the adapter uses; at most the basis has.
        target_modules: "all-linear" (every linear but the output head), a list of module names or of their ends, or
            a regular expression over full names.
        modules_to_save: names of modules that train whole and are saved with the adapter, such as a new head. They
            get no OSoRA.
        layers_to_transform: indices of the decoder layers to adapt; all where it is None.
        layers_pattern: the name of the list of layers, such as "layers" or "h", where PEFT does not find it itself.
        train: "both", or only the singular values "s" or the output vector "o".
        mix: the size c of a matrix that trains between U and V of every targeted weight, 0 for none and at most r. An
            extension of ours, see `osora_core.operator`; it trains whatever `train` says.
        init_weights: True starts as the base; False with small random values, for tests of what an adapter changes.
        basis_rank: how many triplets the base's stored basis has. None: 128 or r, whichever is more. An adapter is
            tied to its basis, so a service with another basis rank than this refuses it.
        base_fingerprint, basis_fingerprint, basis_probe: hashes of the base's weights, of the basis, and of its first
            factors. Filled in when the adapter is made; a loaded adapter is refused on any other base or basis.
        canary: what the adapter answered when it was published, see `osora_core.canary`.
        format_version: of the adapter's files, filled in: 2 with a mix; None, which is not written, without.
    """

    r: int = field(default=128, metadata={"help": "How many leading singular triplets the adapter uses."})
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
    mix: int = field(default=0, metadata={"help": "The size of a trained matrix between U and V; 0 is none."})
    init_weights: bool = field(default=True, metadata={"help": "Whether to start as the base (True) or at random."})
    basis_rank: int | None = field(default=None, metadata={"help": "How many triplets the stored basis has."})
    base_fingerprint: str | None = field(default=None, metadata={"help": "Hash of the base's weights."})
    basis_fingerprint: str | None = field(default=None, metadata={"help": "Hash of the basis."})
    basis_probe: str | None = field(default=None, metadata={"help": "Hash of the basis's first factors."})
    canary: dict[str, Any] | None = field(
        default=None, metadata={"help": "What the adapter answered when it was published."}
    )
    format_version: int | None = field(default=None, metadata={"help": "Of the adapter's files: 2 with a mix."})

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        self.peft_type = PeftType(NAME)
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)
        if self.target_modules is None:
            self.target_modules = ALL_LINEAR
        if self.basis_rank is None:
            self.basis_rank = max(self.r, BASIS_RANK)
        checks = {
            "r": 1 <= self.r <= self.basis_rank,
            "train": self.train in ("both", "s", "o"),
            "mix": type(self.mix) is int and self.mix >= 0 and (not isinstance(self.r, int) or self.mix <= self.r),
            "format_version": self.format_version in (None, 1, MIXED_VERSION),
            "target_modules": bool(self.target_modules),
            "layers_pattern": not self.layers_pattern or self.layers_to_transform is not None,
        }
        if self.mix:
            self.format_version = self.format_version or MIXED_VERSION
        for name, holds in checks.items():
            if not holds:
                raise UserError(
                    f"{name} cannot be {getattr(self, name)!r}",
                    param=name,
                    next_action={
                        "r": f"choose 1 to {self.basis_rank}, or a higher basis_rank",
                        "train": "choose 'both', 's' or 'o'",
                        "mix": f"choose 0 to {self.r}, or a higher r",
                        "format_version": "install a later version of Osora, which reads this adapter",
                        "target_modules": "name a module, or 'all-linear'",
                        "layers_pattern": "say which layers with layers_to_transform",
                    }[name],
                )

    def to_dict(self) -> dict[str, Any]:
        """The fields, with module names in order: equal adapters have equal files; without a mix nothing of one."""
        values: dict[str, Any] = super().to_dict()
        left_out = () if self.mix else ("mix", "format_version")
        return {
            name: sorted(value) if isinstance(value, set) else value
            for name, value in values.items()
            if name not in left_out
        }
