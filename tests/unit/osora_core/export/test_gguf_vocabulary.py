"""Tokenizers as llama.cpp's tables: which are written and how, and which are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader, TokenType
from jinja2 import Environment
from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from osora_core import export
from osora_core.errors import UnsupportedBase
from osora_core.export.gguf_vocabulary import vocabulary_of
from tests.support import tokenizers
from tests.support.gguf import adapt, make_base
from tests.support.gguf_tokenizers import KINDS, LLAMA_3_CUT, conversation, cutting, digits, pieces, tokenizer_of

TINY = Path(__file__).parents[4] / "models" / "osora-tiny"
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")


def tables(tokenizer: PreTrainedTokenizerBase, folder: Path) -> dict[str, Any]:
    """What a file says of a tokenizer."""
    base = make_base(folder / "base", "llama, tied", tokenizer=tokenizer)
    adapter, basis = adapt(base)
    export.to_gguf(adapter, basis, folder / "a.gguf")
    fields = GGUFReader(folder / "a.gguf").fields
    prefix = "tokenizer.ggml."
    return {name.removeprefix(prefix): fields[name].contents() for name in fields if name.startswith("tokenizer.")}


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_has_its_place(kind: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(kind)
    told = tables(tokenizer, tmp_path)
    assert told["pre"] == KINDS[kind][1]
    count = len(tokenizer)
    assert told["tokens"][:count] == tokenizer.convert_ids_to_tokens(list(range(count)))
    assert told["tokens"][count:] == [f"[PAD{count + index}]" for index in range(3)]
    assert told["token_type"][count:] == [TokenType.UNUSED] * 3
    controls = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    assert {id for id, type in enumerate(told["token_type"]) if type == TokenType.CONTROL} == controls
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    if told["model"] == "gpt2":
        assert told["merges"] == [" ".join(pair) for pair in state["model"]["merges"]]
    else:
        assert told["token_type"].count(TokenType.BYTE) == 256
        score = dict(zip(told["tokens"], told["scores"], strict=True))
        ranked = [left + right for left, right in state["model"]["merges"]]
        assert sorted(ranked, key=lambda piece: -score[piece]) == ranked
    assert (told["bos_token_id"], told["eos_token_id"]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert told["add_bos_token"] == (tokenizer("a").input_ids[0] == tokenizer.bos_token_id)
    assert told["tokenizer.chat_template"] == tokenizer.chat_template


@pytest.mark.parametrize(
    ("kind", "space"),
    [
        ("Llama 2 legacy", True),
        ("Llama 2 always", True),
        ("Llama 2", False),
        ("Mistral 0.2", False),
        ("Gemma", False),
        ("GPT-2", None),
    ],
)
def test_a_text_gets_a_space_as_in_the_conversations_of_the_base(kind: str, space: bool | None, tmp_path: Path) -> None:
    assert tables(tokenizer_of(kind), tmp_path).get("add_space_prefix") is space


@pytest.mark.parametrize("scheme", ["always", "first"])
def test_without_a_chat_template_it_is_as_in_plain_texts(scheme: str) -> None:
    assert vocabulary_of(fast(pieces(scheme)), 10_000, None).space is True


def test_the_bundled_base_has_its_tables() -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    found = vocabulary_of(tokenizer, 4096, tokenizer.eos_token_id)
    assert (found.model, found.pre, found.begins, found.ends) == ("gpt2", "gpt-2", False, False)
    assert found.ids == {"eos": 2, "pad": 3}


def test_a_chat_template_is_written_without_what_transformers_alone_reads() -> None:
    """Jinja itself does not know the marks around what is generated, which the bundled base has."""
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    assert "generation -%}" in tokenizer.chat_template
    written = vocabulary_of(tokenizer, 4096, None).chat_template
    assert written is not None
    messages = conversation("  help\n")
    printed = Environment().from_string(written).render(messages=messages, add_generation_prompt=True)
    assert printed == tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def test_the_token_that_ends_an_answer_is_said_where_it_is_not_the_one_that_ends_a_text() -> None:
    tokenizer = tokenizer_of("Llama 3")
    end = tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert vocabulary_of(tokenizer, 500, end).ids["eot"] == end
    assert vocabulary_of(tokenizer, 500, None).ids == {"bos": 0, "eos": 1}


def fast(backend: Tokenizer) -> PreTrainedTokenizerBase:
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def changed(change: Callable[[list[list[str]]], list[list[str]]]) -> Tokenizer:
    """Its second and third merge are the two that make the piece of three spaces."""
    state = json.loads(pieces("legacy", "▁▁", "▁▁▁").to_str())
    state["model"]["merges"] = change(state["model"]["merges"])
    return Tokenizer.from_str(json.dumps(state))


def unmapped() -> Tokenizer:
    """Cut as Llama 3's, but into characters."""
    backend = cutting(LLAMA_3_CUT)
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(LLAMA_3_CUT), behavior="isolated")
    return backend


def with_added(token: AddedToken) -> Tokenizer:
    backend = digits()
    backend.add_tokens([token])
    return backend


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (tokenizers.unigram, "of the kind Unigram"),
        (tokenizers.splitting_digits, "cuts text into words by a rule that llama.cpp has no name for"),
        (unmapped, "by a rule that llama.cpp has no name for"),
        (lambda: tokenizers.byte_level(prefix=True), "by a rule that llama.cpp has no name for"),
        (lambda: cutting(LLAMA_3_CUT.replace("{1,3}", "{1,4}")), "by a rule that llama.cpp has no name for"),
        (lambda: cutting(LLAMA_3_CUT.replace("{1,3}", ""), whole_words=True), "by a rule that llama.cpp has no name"),
        (lambda: changed(lambda merges: merges[:1] + merges[2:]), "not merge every pair that makes one of its pieces"),
        (lambda: changed(lambda merges: merges[:1] + merges[2:] + merges[1:2]), "order that no scores of pieces have"),
        (tokenizers.KINDS["begin and end"], None),
        (lambda: with_added(AddedToken("<x>", lstrip=True)), "take the white space before them"),
        (lambda: with_added(AddedToken("<x>", rstrip=True)), "<x> alone takes white space behind it"),
    ],
)
def test_a_tokenizer_that_llama_cpp_does_not_follow_is_refused(
    make: Callable[[], Tokenizer], problem: str | None
) -> None:
    tokenizer = fast(make())
    if problem is None:
        assert vocabulary_of(tokenizer, 10_000, None).ends
        return
    with pytest.raises(UnsupportedBase, match=problem) as refused:
        vocabulary_of(tokenizer, 10_000, None)
    assert "merged" in (refused.value.next_action or "")


def test_more_tokens_than_embeddings_are_refused() -> None:
    tokenizer = tokenizer_of("GPT-2")
    with pytest.raises(UnsupportedBase, match=f"has {len(tokenizer)} tokens, and the base embeddings for 7"):
        vocabulary_of(tokenizer, 7, None)


def test_control_tokens_that_take_the_space_behind_them_are_told_by_the_name(tmp_path: Path) -> None:
    """llama.cpp goes by the model's name there, and would by one that says so by chance."""
    stripping = json.loads(pieces("legacy").to_str())
    for token in stripping["added_tokens"]:
        token["rstrip"] = token["content"] not in ("<s>", "<unk>")
    names = {}
    for kind, tokenizer in (
        ("plain", tokenizer_of("GPT-2")),
        ("strips", fast(Tokenizer.from_str(json.dumps(stripping)))),
    ):
        adapter, basis = adapt(make_base(tmp_path / kind, "llama, tied", tokenizer=tokenizer))
        for name in ("tickets", "my-Phi3-tickets"):
            export.to_gguf(adapter, basis, tmp_path / "a.gguf", name=name)
            names[kind, name] = GGUFReader(tmp_path / "a.gguf").fields["general.name"].contents()
    assert names == {
        ("plain", "tickets"): "tickets",
        ("plain", "my-Phi3-tickets"): "osora",
        ("strips", "tickets"): "tickets (Phi-3)",
        ("strips", "my-Phi3-tickets"): "my-Phi3-tickets",
    }
