"""The log of a basis's computation: how far it is, and how long it will still take."""

import logging
import time
from collections.abc import Callable

from osora_common.basis_progress import BasisProgress

logger = logging.getLogger(__name__)

_EVERY_SECONDS = 2.0


class BasisLog:
    """Called with each weight that is done and with their number: logs every few seconds, and at the end."""

    def __init__(self, base: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._base = base
        self._clock = clock
        self._begun = self._told = clock()

    def __call__(self, done: int, total: int) -> None:
        now = self._clock()
        if done < total and now - self._told < _EVERY_SECONDS:
            return
        self._told = now
        left = round((now - self._begun) * (total - done) / done)
        logger.info("%s", BasisProgress(self._base, done, total, left if done < total else None))
        if done == total:
            logger.info("the basis of %s took %.1f s", self._base, now - self._begun)
