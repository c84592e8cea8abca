"""OSoRA: the method, as a PEFT tuner and as the engines of the service.

    from osora_core import OsoraConfig
    from peft import get_peft_model

    model = get_peft_model(base, OsoraConfig(r=128))

Importing OsoraConfig registers the method with PEFT, so do it before `PeftModel.from_pretrained` as well. The engines
need no PEFT, which takes seconds to import: it comes only with that name. The basis of a base is computed once and
stored in $OSORA_CACHE, or ~/.cache/osora.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from osora_core.tuner.config import OsoraConfig

__all__ = ["OsoraConfig"]


def __getattr__(name: str) -> Any:
    if name == "OsoraConfig":
        from osora_core.tuner import OsoraConfig

        return OsoraConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
