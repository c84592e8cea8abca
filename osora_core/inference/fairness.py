"""Who is served next: a virtual token counter a tenant.

The scheduler of Sheng et al., "Fairness in Serving Large Language Models" (arXiv 2401.00588): the tenant that has been
served least, in weighted tokens, comes next. Whoever returns after a pause starts at the level of those who wait, so
that nobody saves up service. Within a tenant, first come first served.
"""

from collections import deque

from osora_core.inference.request import Request

# A generated token takes a step of its own, a prompt's tokens share one (the paper's weights).
PROMPT_WEIGHT = 1
TOKEN_WEIGHT = 2


class FairQueue:
    """Requests that wait for a row."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Request]] = {}
        self._served: dict[str, float] = {}
        self._level = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def push(self, request: Request) -> None:
        tenant = request.tenant
        if tenant not in self._waiting:
            self._served[tenant] = max(self._served.get(tenant, 0.0), self._level)
            self._waiting[tenant] = deque()
        self._waiting[tenant].append(request)

    def pop(self) -> Request:
        """The next request; its prompt counts as served. Raises ValueError if nothing waits."""
        tenant = min(self._waiting, key=self._served.__getitem__)
        self._level = max(self._level, self._served[tenant])
        request = self._waiting[tenant].popleft()
        self.charge(tenant, PROMPT_WEIGHT * len(request.prompt))
        if not self._waiting[tenant]:
            self._leave(tenant)
        return request

    def charge(self, tenant: str, tokens: float) -> None:
        """Count weighted tokens as served to a tenant."""
        self._served[tenant] = self._served.get(tenant, self._level) + tokens

    def remove(self, request_id: str) -> None:
        """Forget a request that waits; others are ignored."""
        for tenant, requests in self._waiting.items():
            for request in requests:
                if request.id == request_id:
                    requests.remove(request)
                    if not requests:
                        self._leave(tenant)
                    return

    def _leave(self, tenant: str) -> None:
        del self._waiting[tenant]
        # A counter below the level says nothing: its tenant would be lifted to the level on its return.
        self._served = {t: n for t, n in self._served.items() if t in self._waiting or n > self._level}
