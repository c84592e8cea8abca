"""Tokens to text: whole characters, whatever the tokens cut, and stop strings wherever they fall."""

import time

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from osora_core.data import Renderer
from osora_core.inference.text import TextStream
from tests.support.tiny_base import make_tokenizer
from tests.support.tokenizers import NAMES, tokenizer_of

TOKENIZER = make_tokenizer()


def tokens_of(text: str) -> list[int]:
    ids: list[int] = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    return ids


def stream(tokens: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], str | None]:
    """The pieces, and the stop string that ended them, if one did."""
    made, pieces = TextStream(TOKENIZER, (), stop), []
    for token in tokens:
        piece, stopped = made.push(token)
        pieces.append(piece)
        if stopped is not None:
            return pieces, stopped
    return [*pieces, made.flush()], None


FEW = settings(max_examples=25, deadline=None)


@pytest.mark.parametrize("kind", NAMES)
@FEW
@given(prompt=st.text(max_size=12), answer=st.text(min_size=1, max_size=12))
@example(prompt="The cow says:", answer=" moo")
@example(prompt="The cow says: ", answer="moo")
@example(prompt="ends in \N{REPLACEMENT CHARACTER}", answer=" moo \N{REPLACEMENT CHARACTER}")
@example(prompt="x", answer="  two")
@example(prompt="<|im_start|>" * 9, answer=" moo")
def test_an_answer_comes_as_it_is_written_whatever_stands_before_it(kind: str, prompt: str, answer: str) -> None:
    """A first space most of all: Llama 2's kind of tokenizer drops one where a text begins."""
    tokenizer = tokenizer_of(kind)
    renderer = Renderer(tokenizer, 1000)
    asked = renderer.encode(prompt)
    spelled = tokenizer.backend_tokenizer.decode(asked, skip_special_tokens=True)
    assume((spelled and spelled[-1] != "\N{REPLACEMENT CHARACTER}") or answer[0] != " ")
    stream = TextStream(tokenizer, asked, ())
    text = "".join(stream.push(token)[0] for token in renderer.continuation(answer)) + stream.flush()
    spaced = any(name in kind for name in ("llama-2", "metaspace", "unigram"))
    assert text == (answer.replace("\N{LOWER ONE EIGHTH BLOCK}", " ") if spaced else answer)


def test_control_tokens_before_an_answer_are_no_text_before_it() -> None:
    tokenizer = tokenizer_of("llama-2")
    renderer = Renderer(tokenizer, 1000)
    moo, end = renderer.continuation(" moo"), tokenizer.convert_tokens_to_ids("<|im_end|>")
    for before, said in (([], "moo"), (renderer.encode(""), "moo"), ([*renderer.encode("a"), *[end] * 99], " moo")):
        stream = TextStream(tokenizer, before, ())
        assert "".join(stream.push(token)[0] for token in moo) + stream.flush() == said


def test_a_character_of_several_tokens_comes_whole() -> None:
    pieces, _ = stream(tokens_of("a👍🏽é"))
    assert "".join(pieces) == "a👍🏽é"
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert len(tokens_of("👍")) == 4, "else this tests nothing"


def test_a_character_cut_off_by_the_end_is_shown_as_such() -> None:
    pieces, _ = stream(tokens_of("ok👍")[:-1])
    assert "".join(pieces) == "ok\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("kind", ["llama-2", "unigram"])
@pytest.mark.parametrize("stop", [(), ("never said",)])
def test_bytes_that_are_no_text_end_no_answer(kind: str, stop: tuple[str, ...]) -> None:
    """Tokens of single bytes: one is a character by itself, and with the next ones none of them is."""
    tokenizer = tokenizer_of(kind)
    renderer = Renderer(tokenizer, 1000)
    broken = [tokenizer.convert_tokens_to_ids(name) for name in ("<0x24>", "<0xE2>", "<0x82>")]
    moo = renderer.continuation(" moo")
    for before in (renderer.encode("The cow says"), renderer.encode("x " * 50), []):
        stream = TextStream(tokenizer, before, stop)
        pieces = [stream.push(token)[0] for token in [*moo, *broken, *moo, *broken, *moo]]
        assert "".join(pieces) + stream.flush() == (
            " moo$\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}" * 2 + " moo"
        ).lstrip("" if before else " ")


@pytest.mark.parametrize("stop", ["the order", "👍", "\n\n", "é 👍", "x"])
def test_a_stop_string_is_found_across_tokens_and_never_shown(stop: str) -> None:
    text = f"help the or é x👍{stop}tail"
    pieces, stopped = stream(tokens_of(text), ("never said", stop))
    assert stopped == stop
    assert "".join(pieces) == text[: text.index(stop)]


@settings(max_examples=200, deadline=None)
@given(text=st.text("ab", max_size=40), stops=st.lists(st.text("ab", min_size=1, max_size=9), min_size=1, max_size=4))
def test_a_stop_string_that_begins_within_itself_is_found(text: str, stops: list[str]) -> None:
    pieces, stopped = stream(tokens_of(text), tuple(stops))
    assert (stopped is not None) == any(stop in text for stop in stops)
    if stopped is not None:
        assert text.startswith("".join(pieces) + stopped)
        assert not any(stop in "".join(pieces) for stop in stops)
        assert text.startswith("".join(pieces))
    else:
        assert "".join(pieces) == text


def test_what_a_token_costs_does_not_grow_with_what_is_held_back() -> None:
    """Of a stop string of many like characters all the text may be a beginning."""
    short, long = (tuple("a" * size + str(number) for number in range(64)) for size in (10, 2000))
    tokens = tokens_of("a" * 3000)

    def seconds(stops: tuple[str, ...]) -> float:
        began = time.process_time()
        stream(tokens, stops)
        return time.process_time() - began

    assert seconds(long) < 20 * seconds(short)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=20), stops=st.lists(st.text(min_size=1, max_size=3), max_size=3))
def test_streaming_is_cutting_the_whole_text(text: str, stops: list[str]) -> None:
    pieces, stopped = stream(tokens_of(text), tuple(stops))
    ends = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    assert (stopped is not None) == bool(ends)
    shown = "".join(pieces)
    if not ends:
        assert shown == text
    else:
        # Of two stop strings, the one that is complete first wins, even if the other began earlier.
        first = min((text.find(s) + len(s), text.find(s)) for s in stops if s in text)
        assert text.startswith(shown)
        assert len(shown) <= first[1] + len(max(stops, key=len))
        assert not any(stop in shown for stop in stops)
