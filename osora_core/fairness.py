"""Who is served next: a virtual token counter a tenant.

The scheduler of Sheng et al., "Fairness in Serving Large Language Models" (arXiv 2401.00588): the tenant that has been
served least, in weighted tokens, comes next. Whoever returns after a pause starts at the level of those who wait, so
that nobody saves up service. Within a tenant, first come first served.
"""

from collections import deque
from collections.abc import Callable, Collection
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """What waits."""

    @property
    def id(self) -> str: ...
    @property
    def tenant(self) -> str: ...


T = TypeVar("T", bound=Waiting)


class FairQueue(Generic[T]):
    """What waits for its turn; `cost` is what one turn of it counts as served, in weighted tokens."""

    def __init__(self, cost: Callable[[T], float]) -> None:
        self._cost = cost
        self._waiting: dict[str, deque[T]] = {}
        self._served: dict[str, float] = {}
        self._level = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def push(self, item: T) -> None:
        tenant = item.tenant
        if tenant not in self._waiting:
            self._served[tenant] = max(self._served.get(tenant, 0.0), self._level)
            self._waiting[tenant] = deque()
        self._waiting[tenant].append(item)

    def first(self, passed_over: Collection[str] = ()) -> T | None:
        """The next one, but for those of the tenants `passed_over`. It stays. None if nobody else waits."""
        waiting = [tenant for tenant in self._waiting if tenant not in passed_over]
        return self._waiting[min(waiting, key=self._served.__getitem__)][0] if waiting else None

    def pop(self, passed_over: Collection[str] = ()) -> T:
        """The same one; its cost counts as served. Raises ValueError if there is none."""
        if (first := self.first(passed_over)) is None:
            raise ValueError("nobody waits")
        tenant = first.tenant
        self._level = max(self._level, self._served[tenant])
        item = self._waiting[tenant].popleft()
        self.charge(tenant, self._cost(item))
        if not self._waiting[tenant]:
            self._leave(tenant)
        return item

    def charge(self, tenant: str, tokens: float) -> None:
        """Count weighted tokens as served to a tenant."""
        self._served[tenant] = self._served.get(tenant, self._level) + tokens

    def remove(self, item_id: str) -> None:
        """Forget one that waits; others are ignored."""
        for tenant, items in self._waiting.items():
            for item in items:
                if item.id == item_id:
                    items.remove(item)
                    if not items:
                        self._leave(tenant)
                    return

    def _leave(self, tenant: str) -> None:
        del self._waiting[tenant]
        # A counter below the level says nothing: its tenant would be lifted to the level on its return.
        self._served = {t: n for t, n in self._served.items() if t in self._waiting or n > self._level}
