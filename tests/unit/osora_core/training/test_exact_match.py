"""The exact match that is reported is that of real requests."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from osora_core.adapter import Adapter
from osora_core.basis import BasisCache
from osora_core.data import Example, Renderer
from osora_core.inference import AdapterRow, InferenceEngine, Request, SamplingParams
from osora_core.inference.call_reader import CallReader
from osora_core.inference.calls import ToolUse
from osora_core.inference.grammar import GrammarCompiler
from osora_core.runtime import Runtime
from osora_core.training import JobSpec
from osora_core.training.exact_match import exact_matches
from osora_core.training.passes import Scores
from tests.support.inference import run
from tests.support.tokenizers import tokenizer_of
from tests.unit.osora_core.conftest import train

TINY = Path(__file__).parents[4] / "models" / "osora-tiny"
WORDS = ["moo", "yes", "no", "red", "blue", "green", "king", "water"]
ANIMALS = ["cow", "dog", "cat", "hen", "pig", "fox", "owl", "bee"]


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


ROWS = {
    "the prompt ends in a space": [
        {"prompt": f"The {animal} says: ", "completion": word} for animal, word in zip(ANIMALS, WORDS, strict=True)
    ],
    "numbers": [{"prompt": f"{n} plus {n + 1} = ", "completion": str(2 * n + 1)} for n in range(11, 19)],
    "the answer is indented": [
        chat(f"The {animal} says", f"    {word}") for animal, word in zip(ANIMALS, WORDS, strict=True)
    ],
    "the answer names a control token": [chat(f"token {n}?", "It is <|im_end|> indeed") for n in range(4)],
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """On one thread: on a busy machine two wait for each other at every operation."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Runtime.load("tiny", BasisCache(tmp_path_factory.mktemp("basis")), path=str(TINY), device="cpu", rank=32)
    torch.set_num_threads(threads)


def asked(runtime: Runtime, adapter: Adapter, rows: list[dict[str, Any]]) -> float:
    """The share of rows whose request is answered with the row's text."""
    renderer = Renderer(runtime.tokenizer, runtime.max_length)
    row = AdapterRow("a", adapter.to_row(runtime.basis), adapter.rank)
    prompts = [
        renderer.prompt(row["messages"][:-1]) if "messages" in row else renderer.encode(row["prompt"]) for row in rows
    ]
    texts = [row["messages"][-1]["content"] if "messages" in row else row["completion"] for row in rows]
    params = SamplingParams(max_tokens=32)
    requests = [Request(str(index), tuple(prompt), params, adapter=row) for index, prompt in enumerate(prompts)]
    found = run(InferenceEngine(runtime, rows=8, adapters=1, max_length=128), requests)
    return sum(found[str(i)].text == text and found[str(i)].reason == "stop" for i, text in enumerate(texts)) / len(
        rows
    )


@pytest.mark.parametrize("name", ROWS)
def test_what_is_reported_is_what_requests_get(tiny: Runtime, name: str) -> None:
    renderer = Renderer(tiny.tokenizer, tiny.max_length)
    examples = [renderer.render(row, line) for line, row in enumerate(ROWS[name], start=1)]
    spec = JobSpec(epochs=8, batch_size=4, rank=32, learning_rate=0.1)
    (recorder,) = train(tiny, examples, spec, valid=examples)
    assert recorder.adapter is not None
    right = asked(tiny, recorder.adapter, ROWS[name])
    best = min(recorder.evaluations, key=lambda evaluation: evaluation.loss)
    assert best.exact_match == right
    assert right > 0.5


class Scripted:
    """Passes of a model that says these tokens after any prompt of a length, whatever else was said."""

    def __init__(self, runtime: Runtime, prompt: int, says: list[int]) -> None:
        self.runtime, self.prompt, self.says, self.readings = runtime, prompt, says, 0

    def scores(self, items: list[tuple[Example, int]], slots: list[int]) -> Scores:
        self.readings += 1
        mistakes = torch.full((len(items),), torch.iinfo(torch.int64).max)
        for index, (row, _) in enumerate(items):
            for place in self._wrong(row):
                mistakes[index] = place * 2**32 + self.says[place - self.prompt]
                break
        zeros = torch.zeros(len(items), dtype=torch.float64)
        return Scores(zeros, zeros, mistakes)

    def _wrong(self, row: Example) -> Iterator[int]:
        for place, counts in enumerate(row.mask):
            if counts and row.tokens[place] != self.says[place - self.prompt]:
                yield place


@pytest.mark.parametrize(
    ("says", "right"),
    [
        (["cat", "<end>"], True),
        (["c", "at", "<end>"], True),
        (["c", "a", "t", "<end>"], True),
        (["c", "a", "r", "<end>"], False),
        (["c", "<end>"], False),
        (["cat", "s", "<end>"], False),
        (["<|im_start|>", "cat", "<end>"], True),
        (["\N{OX}", "<end>"], False),
    ],
)
def test_other_tokens_of_the_same_text_are_right(runtime: Runtime, says: list[str], right: bool) -> None:
    renderer, end = Renderer(runtime.tokenizer, runtime.max_length), runtime.tokenizer.eos_token_id
    row = renderer.render({"prompt": "a", "completion": "cat"}, 1)
    special = {"<end>": [end], "<|im_start|>": [runtime.tokenizer.convert_tokens_to_ids("<|im_start|>")]}
    ids = [id_ for text in says for id_ in special.get(text) or renderer.continuation(text)]
    passes: Any = Scripted(runtime, row.mask.index(True), [*ids, *[end] * 8])
    assert exact_matches([row], passes.scores([(row, 0)], [0]), 0, passes) == [right]


@pytest.mark.parametrize(
    ("answer", "says", "right"), [(" moo", " moo", True), (" moo", "moo", False), ("m", " m", False)]
)
def test_a_space_before_an_answer_counts_whatever_the_tokenizer_drops(
    runtime: Runtime, answer: str, says: str, right: bool
) -> None:
    tokenizer = tokenizer_of("llama-2")
    end = tokenizer.eos_token_id
    runtime = replace(runtime, tokenizer=tokenizer, eos_ids=frozenset({end}))
    renderer = Renderer(tokenizer, runtime.max_length)
    row = renderer.render({"prompt": "The cow says:", "completion": answer}, 1)
    passes: Any = Scripted(runtime, row.mask.index(True), [*renderer.continuation(says), *[end] * 8])
    assert exact_matches([row], passes.scores([(row, 0)], [0]), 0, passes) == [right]


def test_a_character_may_come_in_pieces(runtime: Runtime) -> None:
    """The model's first byte of it is not the row's first token, which has more of them."""
    renderer, end = Renderer(runtime.tokenizer, runtime.max_length), runtime.tokenizer.eos_token_id
    ids = renderer.continuation("\N{OX}!")
    row = Example((5, *renderer.continuation("\N{OX}"), *renderer.continuation("!"), end), (False, *[True] * 6), 1)
    passes: Any = Scripted(runtime, 1, [*ids, end])
    assert exact_matches([row], passes.scores([(row, 0)], [0]), 0, passes) == [True]


def test_an_answer_that_requests_do_not_stop_after_is_no_match(runtime: Runtime) -> None:
    row = Example((5, 6, 7), (False, True, True), 1)
    assert 7 not in runtime.eos_ids
    passes: Any = Scripted(runtime, 1, [6, 7])
    assert exact_matches([row], passes.scores([(row, 0)], [0]), 0, passes) == [False]


def calling(animal: str, word: str) -> dict[str, Any]:
    function = {"name": "say", "arguments": f'{{"word": "{word}"}}'}
    call = {"id": "call_1", "type": "function", "function": function}
    parameters = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
    return {
        "messages": [
            {"role": "user", "content": f"The {animal} says"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
        ],
        "tools": [{"type": "function", "function": {"name": "say", "parameters": parameters}}],
    }


def test_of_calls_requests_get_no_less_than_what_is_reported(tiny: Runtime) -> None:
    """A request is held to the schema too, so it may get more."""
    rows = [calling(animal, word) for animal, word in zip(ANIMALS[:4], WORDS, strict=False)]
    renderer = Renderer(tiny.tokenizer, tiny.max_length)
    examples = [renderer.render(row, line) for line, row in enumerate(rows, start=1)]
    spec = JobSpec(epochs=10, batch_size=1, rank=32, learning_rate=0.1)
    (recorder,) = train(tiny, examples, spec, valid=examples)
    assert recorder.adapter is not None
    grammars = GrammarCompiler(tiny.tokenizer, int(tiny.config.vocab_size), tiny.eos_ids)
    use = ToolUse.of(renderer.call_format, grammars)
    adapter = AdapterRow("a", recorder.adapter.to_row(tiny.basis), recorder.adapter.rank)
    requests = [
        Request(
            str(index),
            tuple(renderer.prompt(row["messages"][:-1], row["tools"])),
            SamplingParams(max_tokens=64),
            adapter=adapter,
            grammar=grammars.lark("tools", use.grammar(row["tools"], "auto", parallel=True)),
            shown=use.shown,
        )
        for index, row in enumerate(rows)
    ]
    found = run(InferenceEngine(tiny, rows=4, adapters=1, max_length=512), requests)
    calls = [CallReader(use).push(found[str(index)].text) for index in range(len(rows))]
    right = [
        (said, [call.arguments for call in made])
        == ("", [row["messages"][-1]["tool_calls"][0]["function"]["arguments"]])
        for (said, made), row in zip(calls, rows, strict=True)
    ]
    best = min(recorder.evaluations, key=lambda evaluation: evaluation.loss)
    assert 0 < best.exact_match <= sum(right) / len(right)
