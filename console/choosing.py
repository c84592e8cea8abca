"""The models that somebody may choose among."""

import asyncio
from dataclasses import dataclass

from console.adapter_facts import short_name
from osora.schemas import Adapter, Alias, Base
from osora.sdk import AsyncOsora

_MOST = 200


@dataclass(frozen=True)
class Choice:
    """What can be asked at all: the newest adapters, all aliases, the bases."""

    bases: list[Base]
    adapters: list[Adapter]
    aliases: list[Alias]

    def base_names(self) -> list[str]:
        return [base["name"] for base in self.bases]

    def is_base(self, model: str) -> bool:
        return model in self.base_names()

    def is_chat(self, base: str) -> bool:
        """Whether it takes conversations; where that is not known, it is tried."""
        found = next((one for one in self.bases if one["name"] == base), None)
        return found is None or found.get("has_chat_template") is not False

    def tuned(self, base: str | None = None) -> dict[str, str]:
        """Aliases and adapters (of a base) by what they are called by, with what people read."""
        named = {alias["name"]: f"{alias['name']} (alias)" for alias in self.aliases}
        own = {
            adapter["id"]: f"{short_name(adapter['name'])} · {adapter['id'][-6:]}"
            for adapter in self.adapters
            if base is None or adapter["base"] == base
        }
        return {**named, **own}

    def every(self) -> dict[str, str]:
        """The bases before those."""
        return {**{name: f"{name} (base)" for name in self.base_names()}, **self.tuned()}


async def choice(osora: AsyncOsora) -> Choice:
    """What there is now. Raises OsoraError."""

    async def adapters() -> list[Adapter]:
        return [adapter async for adapter in osora.adapters.list(_MOST)]

    async def aliases() -> list[Alias]:
        return [alias async for alias in osora.aliases.list(_MOST)]

    bases, tuned, named = await asyncio.gather(osora.bases(), adapters(), aliases())
    return Choice(list(bases), tuned, named)
