"""Tokenizers read from a GGUF file's tables: the same tokens as before."""

from pathlib import Path

import pytest

from osora_core.errors import UnsupportedBase
from osora_core.gguf_base.head import GgufFile
from osora_core.gguf_base.vocabulary import tokenizer_of
from tests.support.gguf import make_base
from tests.support.gguf_bases import write_gguf
from tests.support.gguf_tokenizers import KINDS, TEXTS, conversation
from tests.support.gguf_tokenizers import tokenizer_of as made

OF_BYTES = [kind for kind, (_, pre, _) in KINDS.items() if pre != "default"]


@pytest.mark.parametrize("kind", OF_BYTES)
def test_texts_become_the_same_tokens(tmp_path: Path, kind: str) -> None:
    own = made(kind)
    base = make_base(tmp_path / "base", "llama", tokenizer=own)
    read = tokenizer_of(GgufFile.open(write_gguf(base, tmp_path / "a.gguf")))
    for text in TEXTS:
        assert read(text).input_ids == own(text).input_ids, text
        assert read.decode(own(text).input_ids) == own.decode(own(text).input_ids)
        asked = conversation(text)
        printed = (one.apply_chat_template(asked, tokenize=False, add_generation_prompt=True) for one in (read, own))
        assert len({*printed}) == 1
    assert (read.bos_token_id, read.eos_token_id) == (own.bos_token_id, own.eos_token_id)


def test_a_rule_of_cutting_that_is_not_known_is_refused(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "llama", tokenizer=made("SmolLM"))
    file = GgufFile.open(write_gguf(base, tmp_path / "a.gguf"))
    says = {**file.says, "tokenizer.ggml.pre": "of-tomorrow"}
    with pytest.raises(UnsupportedBase, match="of-tomorrow"):
        tokenizer_of(GgufFile(file.path, says, file.tensors))
    with pytest.raises(UnsupportedBase, match="'wordpiece'"):
        tokenizer_of(GgufFile(file.path, {**says, "tokenizer.ggml.model": "wordpiece"}, file.tensors))
