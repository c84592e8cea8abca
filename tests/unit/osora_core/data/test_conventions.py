"""Prompts as the tokenizers of well-known models mean them: what transformers makes by default, once each."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from osora_core import canary
from osora_core.data import Renderer
from osora_core.data.decoding import Continuation
from osora_core.errors import DataError
from osora_core.inference.text import TextStream
from tests.support.conventions import CONVENTIONS, convention_of

LONG = 100_000
TEXTS = [
    "What is 12 plus 3?\n\nTell me.",
    " begins with a space",
    "ends with one ",
    "naïve 東京 😀",
    "  two\n",
    "[brackets] x",
]
CHATS = [name for name, convention in CONVENTIONS.items() if convention.template is not None]


def conversations(name: str) -> list[list[dict[str, str]]]:
    """Each ends with a question."""
    user = [[{"role": "user", "content": text}] for text in TEXTS]
    answered = [*user[0], {"role": "assistant", "content": "It is so."}, *user[3]]
    made = [*user, answered, [*answered, {"role": "assistant", "content": "yes  "}, *user[0]]]
    if CONVENTIONS[name].system:
        made.append([{"role": "system", "content": "Be brief."}, *answered])
    return made


def transformers_ids(name: str, messages: Sequence[dict[str, str]], *, generate: bool) -> list[int]:
    ids: list[int] = convention_of(name).apply_chat_template(
        list(messages), tokenize=True, add_generation_prompt=generate, return_dict=True
    )["input_ids"]
    return ids


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_plain_prompt_is_what_the_tokenizer_makes_but_for_an_end(name: str) -> None:
    tokenizer, convention = convention_of(name), CONVENTIONS[name]
    renderer = Renderer(tokenizer, LONG)
    for text in TEXTS:
        expected = tokenizer(text)["input_ids"]
        if convention.end:
            assert expected.pop() == tokenizer.eos_token_id
        assert renderer.encode(text) == expected
        assert expected.count(tokenizer.bos_token_id) == convention.begin
    assert renderer.encode("") == [tokenizer.bos_token_id] * convention.begin


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_completion_is_trained_between_its_prompt_and_one_end(name: str) -> None:
    tokenizer = convention_of(name)
    renderer = Renderer(tokenizer, LONG)
    for text in TEXTS:
        row = renderer.render({"prompt": text, "completion": " It is so."}, 1)
        ((begin, end),) = row.answers
        assert list(row.tokens[:begin]) == renderer.encode(text)
        assert row.tokens[end - 1] == tokenizer.eos_token_id
        assert (row.tokens.count(tokenizer.eos_token_id), end) == (1, len(row))


@pytest.mark.parametrize("name", CHATS)
def test_a_conversation_is_asked_as_transformers_asks_it(name: str) -> None:
    renderer = Renderer(convention_of(name), LONG)
    for messages in conversations(name):
        assert renderer.prompt(messages) == transformers_ids(name, messages, generate=True), messages


@pytest.mark.parametrize("name", CHATS)
def test_a_conversation_is_trained_as_transformers_renders_it(name: str) -> None:
    """Its prompt first, whatever merges a tokenizer makes between that and the answer; then the same control tokens."""
    tokenizer = convention_of(name)
    renderer = Renderer(tokenizer, LONG)
    controls = {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
    for messages in conversations(name):
        whole = [*messages, {"role": "assistant", "content": "It is so."}]
        row = renderer.render({"messages": whole}, 1)
        begin, end = row.answers[-1]
        assert list(row.tokens[:begin]) == renderer.prompt(messages)
        expected = transformers_ids(name, whole, generate=False)
        assert [id_ for id_ in row.tokens if id_ in controls] == [id_ for id_ in expected if id_ in controls]
        said = {"Llama 2": " It is so. ", "Mistral": " It is so.", "Mistral v3": " It is so."}.get(name, "It is so.")
        assert Continuation(tokenizer, row.tokens[:begin]).text(row.tokens[begin : end - 1]) == said
        assert row.tokens[end - 1] in controls


@pytest.mark.parametrize("name", CONVENTIONS)
def test_the_canary_asks_what_a_request_asks(name: str) -> None:
    tokenizer = convention_of(name)
    renderer = Renderer(tokenizer, LONG)
    runtime: Any = SimpleNamespace(tokenizer=tokenizer, max_length=LONG)
    if CONVENTIONS[name].template is None:
        whole = renderer.encode(canary.PROMPT)
    else:
        whole = renderer.prompt([{"role": "user", "content": canary.PROMPT}])
    asked = canary.prompt_tokens(runtime)
    assert asked in (whole[: len(asked)], whole[-len(asked) :])
    assert asked.count(tokenizer.bos_token_id) <= whole.count(tokenizer.bos_token_id)


@pytest.mark.parametrize("name", [name for name in CHATS if not CONVENTIONS[name].system])
def test_what_a_template_refuses_is_refused_in_its_words(name: str) -> None:
    messages = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    with pytest.raises(DataError, match="line 4: the base's chat template refuses these messages: no system role"):
        Renderer(convention_of(name), LONG).render({"messages": [*messages, {"role": "assistant", "content": "c"}]}, 4)


def test_an_answer_behind_a_control_token_is_encoded_as_its_model_says_it() -> None:
    """Phi-3's tokenizer takes what follows a turn's token for the beginning of a text, and puts a space before it."""
    tokenizer = convention_of("Phi-3")
    messages = [{"role": "user", "content": "moo?"}, {"role": "assistant", "content": "moo"}]
    row = Renderer(tokenizer, LONG).render({"messages": messages}, 1)
    assert list(row.tokens) == transformers_ids("Phi-3", messages, generate=False)
    ((begin, end),) = row.answers
    assert tokenizer.convert_ids_to_tokens(row.tokens[begin])[0] == "▁"
    stream = TextStream(tokenizer, row.tokens[:begin], ())
    assert "".join(stream.push(token)[0] for token in row.tokens[begin : end - 1]) + stream.flush() == "moo"


def test_an_answer_to_nothing_is_the_beginning_of_a_text() -> None:
    tokenizer = convention_of("Llama 2")
    row = Renderer(tokenizer, LONG).render({"prompt": "", "completion": "moo"}, 1)
    assert list(row.tokens) == [*tokenizer("moo")["input_ids"], tokenizer.eos_token_id]
    assert row.answers == [(1, len(row))]
