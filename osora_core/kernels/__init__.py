"""Triton kernels for a decoder on a GPU.

Triton is optional: torch for CUDA brings it, torch for CPUs does not. Import the modules of this package only where
`available()` says so.
"""

from importlib.util import find_spec


def available() -> bool:
    """Whether Triton is installed."""
    return find_spec("triton") is not None
