"""The banks that an execution reads, and where in them the adapter of a batch row lies."""

from dataclasses import dataclass
from typing import NamedTuple

from osora_core.bank import Bank
from osora_core.inference.lora_bank import LoraBank
from osora_core.inference.mix_bank import MixBank


@dataclass(frozen=True)
class Banks:
    """Of the adapters of the basis, of plain LoRAs, and of the mixes of those adapters that have one."""

    adapters: Bank
    loras: LoraBank
    mixes: MixBank


class Places(NamedTuple):
    """The slots of a row's adapter, LoRA and mix, 0 of each: it has none; and the adapter's rank."""

    slot: int = 0
    rank: int = 0
    lora: int = 0
    mix: int = 0
