import json
from pathlib import Path

import pytest

from osora_core.basis import BasisCache
from osora_core.errors import UserError
from osora_core.runtime import Runtime


@pytest.mark.parametrize("config", [{"model_type": "llama"}, {"model_type": "no-such-family"}, {"model_type": "clip"}])
def test_what_is_no_base_model_is_refused_in_one_sentence(tmp_path: Path, config: dict[str, str]) -> None:
    """No weights; a family that transformers does not know; one that is no language model."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError) as refused:
        Runtime.load("mine", BasisCache(tmp_path / "cache"), path=str(folder), device="cpu")
    assert refused.value.message.startswith(f"the base model {str(folder)!r} cannot be loaded: ")
    assert "\n" not in refused.value.message
    assert refused.value.next_action
