"""Which of the requests that wait get a row."""

from collections.abc import Sequence

from osora_core.fairness import FairQueue
from osora_core.inference.cache import PoolSize
from osora_core.inference.request import AdapterRow, LoraRow, Request
from osora_core.inference.slots import LoraSlots, MixSlots


class Admission:
    """Rows, keys and values, ranks of LoRAs and room for mixes, as far as they reach.

    `running` is all that has a row, and what is asked about comes last in it.
    """

    def __init__(self, size: PoolSize, loras: LoraSlots, mixes: MixSlots, tenant_share: float) -> None:
        self._size = size
        self._loras = loras
        self._mixes = mixes
        self._tenant_share = tenant_share

    def admit(self, waiting: FairQueue[Request], live: Sequence[Request], *, one_waits: bool) -> list[Request]:
        """Those that wait and have room, out of the queue, in its order.

        Nobody overtakes one for which there are no keys and values yet: it would wait for ever. One whose LoRA or mix
        has no room (`one_waits`: an examined one) lets others pass but those of its tenant and those with LoRAs and
        mixes, likewise. And a tenant that has its share lets all others pass.
        """
        running = list(live)
        passed_over: set[str] = set()
        sated: set[str] = set()
        while (request := waiting.first(passed_over | sated)) is not None:
            adapter = request.adapter
            coming = [*running, request]
            if not self._is_within_share(coming):
                sated.add(request.tenant)
            elif not self.has_room(coming):
                break
            elif needs_room(adapter) and (one_waits or passed_over or not self.has_ranks(coming)):
                passed_over.add(request.tenant)
            else:
                running.append(waiting.pop(passed_over | sated))
        return running[len(live) :]

    def has_ranks(self, running: Sequence[Request]) -> bool:
        """Whether their LoRAs and mixes have room beside each other."""
        return self._loras.fits(
            own.adapter for own in running if isinstance(own.adapter, LoraRow)
        ) and self._mixes.fits(own.adapter for own in running if isinstance(own.adapter, AdapterRow))

    def has_room(self, running: Sequence[Request]) -> bool:
        """Whether there are rows for them, and keys and values to whatever length all of them may grow."""
        return len(running) <= self._size.lines and self._tokens(running) <= self._size.tokens

    def _is_within_share(self, running: Sequence[Request]) -> bool:
        """Whether the last one's tenant leaves others a part of the rows and of the room for tokens: who comes later
        would else wait for whole answers to end. One request is always within its share."""
        own = [request for request in running if request.tenant == running[-1].tenant]
        rows, tokens = self._tenant_share * self._size.lines, self._tenant_share * self._size.tokens
        return len(own) == 1 or (len(own) <= rows and self._tokens(own) <= tokens)

    def _tokens(self, requests: Sequence[Request]) -> int:
        """How many all of them may become at most, prompts included."""
        return sum(min(len(own.prompt) + own.params.max_tokens, self._size.length) for own in requests)


def needs_room(adapter: AdapterRow | LoraRow | None) -> bool:
    """Whether an adapter may have to wait for others to leave a bank: one of the shared basis never has."""
    return isinstance(adapter, LoraRow) or (adapter is not None and adapter.mix > 0)
