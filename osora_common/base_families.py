"""What transformers has of a family of models, read from its source: to import it takes seconds.

Where it cannot be told from here, it is found out when the base is loaded.
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_MAPPING = re.compile(r"^MODEL_FOR_CAUSAL_LM_MAPPING_NAMES = .*?^\)", re.MULTILINE | re.DOTALL)
_FAMILY = re.compile(r'\(\s*"([^"]+)",\s*"[^"]+"')
# How a model asks for the attention that it was told to use, which for us is our own.
_INTERFACE = "ALL_ATTENTION_FUNCTIONS"


def why_not(config: Mapping[str, Any]) -> str | None:
    """Why a model with this config.json is none that can be trained and served here, if that can be told."""
    family = config["model_type"]
    if (known := _causal_families()) and family not in known:
        foreign = "; code that a model brings along is not run" if "auto_map" in config else ""
        return f"transformers has no causal language model of its family {family!r}{foreign}"
    if config.get("is_encoder_decoder") is True:
        return f"its family {family!r} has an encoder, and only decoders are trained"
    composed = any(isinstance(part, Mapping) and "model_type" in part for part in config.values())
    if not composed and _asks_for_attention(family) is False and _asks_for_attention("llama"):
        return (
            f"the attention of its family {family!r} is written into the model (or it has none), and what would be "
            "needed is one that transformers lets others take the place of"
        )
    return None


@cache
def _causal_families() -> frozenset[str]:
    """The values of `model_type` that have a causal language model."""
    source = _source("auto", "modeling_auto.py")
    found = _MAPPING.search(source) if source else None
    return frozenset(_FAMILY.findall(found[0])) if found else frozenset()


@cache
def _asks_for_attention(family: str) -> bool | None:
    folder = family.replace("-", "_")
    source = _source(folder, f"modeling_{folder}.py")
    return None if source is None else _INTERFACE in source


def _source(folder: str, name: str) -> str | None:
    spec = find_spec("transformers")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(place, "models", folder, name)
        if path.is_file():
            return path.read_text(encoding="utf-8")
    return None
