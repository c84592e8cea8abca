"""Who computes first where there are fewer processors than threads."""

import os
import sys

_LOWER = 10


def give_way() -> None:
    """From here on the thread that calls this gives way to the process's others. On Linux alone: elsewhere all threads
    of a process have one priority."""
    if sys.platform == "linux":
        os.nice(_LOWER)
