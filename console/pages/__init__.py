"""The pages, one module each. What is here is found by being here."""

import importlib
import pkgutil


def register() -> None:
    """Make every page known."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
