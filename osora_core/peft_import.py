"""Makes the tuner known to PEFT without importing PEFT, which takes seconds: at the moment somebody else does."""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def register_with_peft() -> None:
    """Import the tuner now if PEFT is there already, else right after PEFT is imported."""
    if "peft" in sys.modules:
        _import_tuner()
    else:
        sys.meta_path.insert(0, _AfterPeft())


def _import_tuner() -> None:
    import osora_core.tuner  # noqa: F401


class _AfterPeft(MetaPathFinder):
    """Finds PEFT as it would be found without us, and has the tuner imported behind it.

    It stays, as to be asked for PEFT does not mean that PEFT is imported: transformers asks whether it is installed.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "peft":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((spec for finder in others if (spec := finder.find_spec(fullname, path, target))), None)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = _then_tuner(spec.loader.exec_module)  # type: ignore[assignment, method-assign]
        return spec


def _then_tuner(run: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
    def exec_module(module: ModuleType) -> None:
        run(module)
        _import_tuner()

    return exec_module
