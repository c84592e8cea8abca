"""The methods that a job can learn by. A further one is a module here with a class of the protocol `Method`, and a line
in METHODS."""

from collections import defaultdict
from collections.abc import Sequence

from osora_core.data import Row
from osora_core.errors import UserError
from osora_core.training.methods.dpo import Dpo
from osora_core.training.methods.protocol import Contribution, Figures, Learner, Method
from osora_core.training.methods.supervised import Supervised
from osora_core.training.passes import Passes

__all__ = ["METHODS", "Contribution", "Figures", "Learner", "Method", "contributions", "named"]

METHODS: dict[str, Method] = {
    "supervised": Supervised(),
    "dpo": Dpo(),
}


def named(name: str) -> Method:
    """The method of this name; raises UserError if there is none."""
    if name not in METHODS:
        raise UserError(f"method cannot be {name!r}", param="method", next_action=f"choose from {', '.join(METHODS)}")
    return METHODS[name]


def contributions(stepping: Sequence[tuple[Learner, Sequence[Row]]], passes: Passes) -> list[Contribution]:
    """What each of these jobs brings with the batch beside it; those of one method are worked out together."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, (job, _) in enumerate(stepping):
        groups[job.spec.method].append(index)
    found: dict[int, Contribution] = {}
    for name, indices in groups.items():
        brought = named(name).contributions([stepping[index] for index in indices], passes)
        found.update(zip(indices, brought, strict=True))
    return [found[index] for index in range(len(stepping))]
