"""What a schema or a pattern constrains always fits it, however wild the sampling."""

import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osora_core.errors import UserError
from osora_core.inference import InferenceEngine, Request, SamplingParams, grammar
from osora_core.inference.grammar import Grammar, GrammarCompiler, Matcher
from osora_core.runtime import Runtime
from tests.support.inference import prompt, run

VALUES: list[dict[str, Any]] = [
    {"type": "boolean"},
    {"type": "null"},
    {"type": "integer", "minimum": -5, "maximum": 120},
    {"enum": ["billing", "shipping", 'a "quoted" word', "größer"]},
    {"type": "string", "maxLength": 4},
    {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
]
schemas = st.lists(st.integers(0, len(VALUES) - 1), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def compiler(runtime: Runtime) -> GrammarCompiler:
    return GrammarCompiler(runtime.tokenizer, runtime.model.config.vocab_size, runtime.eos_ids)


def fits(value: Any, schema: dict[str, Any]) -> bool:
    if "enum" in schema:
        return value in schema["enum"]
    match schema["type"]:
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "integer":
            return isinstance(value, int) and schema["minimum"] <= value <= schema["maximum"]
        case "string":
            return isinstance(value, str) and len(value) <= schema["maxLength"]
        case _:
            return len(value) <= schema["maxItems"] and all(isinstance(item, bool) for item in value)


def waits_until_released(matcher: Matcher, released: threading.Event, seconds: float) -> None:
    """Whoever asks for the next mask is not answered in so many seconds, and is once `released` is set."""
    with ThreadPoolExecutor(1) as asking:
        asked = asking.submit(matcher.allowed)
        with pytest.raises(TimeoutError):
            asked.result(seconds)
        released.set()
        assert asked.result(60).any()


def test_schema_constrained_output_always_parses(runtime: Runtime, compiler: GrammarCompiler) -> None:
    engine = InferenceEngine(runtime, rows=2)
    parsed = 0

    @settings(max_examples=60, deadline=None)
    @given(kinds=schemas, seed=st.integers(0, 10**6), temperature=st.sampled_from([0.0, 1.0, 3.0]))
    def holds(kinds: list[int], seed: int, temperature: float) -> None:
        nonlocal parsed
        properties = {f"p{place}": VALUES[kind] for place, kind in enumerate(kinds)}
        schema = {
            "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False
        }  # fmt: skip
        params = SamplingParams(max_tokens=110, temperature=temperature, seed=seed)
        request = Request("a", prompt(runtime, 0)[:8], params, grammar=compiler.json_schema(schema))
        # Beside it, one without a constraint: neither may see the other's.
        free = Request("b", prompt(runtime, 1), SamplingParams(max_tokens=5))
        result = run(engine, [request, free])["a"]
        if result.reason == "length":
            return  # cut off where it was told to end
        value = json.loads(result.text)
        parsed += 1
        assert list(value) == list(properties)
        assert all(fits(value[name], properties[name]) for name in properties), result.text

    holds()
    assert parsed > 30


def test_a_pattern_is_matched_from_end_to_end(runtime: Runtime, compiler: GrammarCompiler) -> None:
    pattern = "(yes|no|größer){1,3}, [0-9]{4}"
    requests = [
        Request(f"{seed}", prompt(runtime, 1)[:8], SamplingParams(max_tokens=60, temperature=2.0, seed=seed),
                grammar=compiler.regex(pattern))
        for seed in range(8)
    ]  # fmt: skip
    results = run(InferenceEngine(runtime, rows=4), requests)
    for result in results.values():
        assert result.reason == "stop"
        assert re.fullmatch(pattern, result.text), result.text
    assert len({result.text for result in results.values()}) > 1


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"$ref": "#/nowhere"}, {"type": "object", "properties": 3}])
def test_what_is_no_schema_names_the_field(compiler: GrammarCompiler, schema: dict[str, Any]) -> None:
    with pytest.raises(UserError) as refused:
        compiler.json_schema(schema)
    assert refused.value.param == "json_schema"


def test_what_is_no_pattern_names_the_field(compiler: GrammarCompiler) -> None:
    with pytest.raises(UserError, match="regex") as refused:
        compiler.regex("(a")
    assert refused.value.param == "regex"


@pytest.mark.parametrize("ending", ["\\", "\\\\\\"])
def test_a_pattern_that_ends_within_an_escape_is_none(compiler: GrammarCompiler, ending: str) -> None:
    with pytest.raises(UserError, match="regex cannot be used: it ends in a backslash"):
        compiler.regex(f"a{ending}")
    compiler.regex(f"a{ending}\\")


def test_what_no_text_can_match_is_refused_in_plain_words(compiler: GrammarCompiler) -> None:
    with pytest.raises(UserError, match="json_schema cannot be followed: there is no text that it allows"):
        compiler.json_schema({"$ref": "#"})


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


@pytest.mark.parametrize("depth", [64, 5000])
def test_a_schema_that_is_too_deep_is_refused(compiler: GrammarCompiler, depth: int) -> None:
    with pytest.raises(UserError, match=r"recursion|too deep") as refused:
        compiler.json_schema(nested(depth))
    assert refused.value.param == "json_schema"
    compiler.json_schema(nested(20))


HEAVY = [r"((a{1000}){1000}){1000}", r"(a{1000}){1000}", r"xyz(a{1000}){1000}"]


@pytest.mark.parametrize("pattern", HEAVY)
def test_a_pattern_that_takes_too_much_work_is_refused_before_it_reaches_an_engine(
    compiler: GrammarCompiler, pattern: str
) -> None:
    for constrain, param in ((compiler.regex, "regex"), (schema_of(compiler), "json_schema")):
        with pytest.raises(UserError, match=r"too many|too big") as refused:
            constrain(pattern)
        assert refused.value.param == param
        assert "<" not in refused.value.message, "the parser's state is nobody's business"


def schema_of(compiler: GrammarCompiler) -> Callable[[str], Grammar]:
    return lambda pattern: compiler.json_schema({"type": "string", "pattern": f"^{pattern}$"})


def test_a_grammar_that_takes_too_much_memory_is_refused_by_its_length(
    compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "_compile", None)  # it is not so much as looked at
    with pytest.raises(UserError, match="2500000 characters; at most") as refused:
        compiler.regex(r"\p{L}" * 500_000)
    assert refused.value.param == "regex"
    with pytest.raises(UserError, match="characters; at most") as refused:
        compiler.json_schema({"pattern": r"\p{L}" * 500_000})
    assert refused.value.param == "json_schema"


def test_what_was_compiled_or_refused_is_not_compiled_again(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = GrammarCompiler(runtime.tokenizer, runtime.model.config.vocab_size, runtime.eos_ids)
    compiled = []
    compile = compiler._compile
    monkeypatch.setattr(
        compiler, "_compile", lambda param, text, parse: compiled.append(text) or compile(param, text, parse)
    )
    for _ in range(3):
        assert compiler.regex("[a-z]{3}").start().allowed().any()
        for pattern in ("(a", HEAVY[0]):
            with pytest.raises(UserError, match="regex"):
                compiler.regex(pattern)
    assert compiled == ["[a-z]{3}", "(a", HEAVY[0]]
    # A schema of the same text is another thing.
    compiler.json_schema({})
    with pytest.raises(UserError):
        compiler.regex("{}{}(")
    assert len(compiled) == 5


def test_old_grammars_make_room_for_new_ones(runtime: Runtime) -> None:
    compiler = GrammarCompiler(runtime.tokenizer, runtime.model.config.vocab_size, runtime.eos_ids)
    for number in range(300):
        compiler.regex(f"a{{{number + 1}}}")
    assert len(compiler._compiled._entries) <= 256
    for number in range(60):
        compiler.regex("|".join(f"{number}-{word}" for word in range(1500)))
    entries = compiler._compiled._entries
    assert sum(size for size, _ in entries.values()) == compiler._compiled._characters <= 512 * 1024


def walk(made: Grammar, steps: int) -> list[int]:
    """The highest allowed token again and again, until the text is whole."""
    matcher = made.start()
    tokens: list[int] = []
    while len(tokens) < steps and not matcher.complete:
        tokens.append(int(matcher.allowed().nonzero()[-1]))
        matcher.accept(tokens[-1])
    return tokens


def test_dear_masks_come_from_another_thread_and_are_the_same(
    compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = compiler.regex("([a-f]{2}-){3}[0-9]{4}(x|y)")
    threads = set()
    mask = grammar._mask

    def note(*arguments: Any) -> Any:
        threads.add(threading.current_thread().name)
        return mask(*arguments)

    monkeypatch.setattr(grammar, "_mask", note)
    monkeypatch.setattr(grammar, "_DEAR_SECONDS", 60)
    cheap = walk(made, 30)
    assert threads == {threading.current_thread().name}
    threads.clear()
    monkeypatch.setattr(grammar, "_DEAR_SECONDS", -1)
    assert walk(made, 30) == cheap
    assert all(name.startswith("grammar-mask") for name in threads)


def test_a_mask_that_never_comes_ends_its_own_generation(
    compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = compiler.regex("[a-f]{20}")
    matcher = made.start()
    released = threading.Event()

    def endless(*_: Any) -> None:
        while not released.is_set():
            pass

    monkeypatch.setattr(grammar, "_mask", endless)
    monkeypatch.setattr(grammar, "_DEAR_SECONDS", -1)
    monkeypatch.setattr(grammar, "_MASK_SECONDS", 0.01)
    matcher.accept(int(matcher.allowed().nonzero()[-1]))
    try:
        with pytest.raises(UserError, match="regex cannot be followed: finding the next token takes too long"):
            matcher.allowed()
    finally:
        released.set()
    monkeypatch.undo()
    assert len(walk(made, 30)) > 3


def test_a_mask_whose_thread_is_kept_waiting_by_the_machine_is_not_refused(
    compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy one, or one that was stopped for a while: only what is computed counts."""
    released, mask = threading.Event(), grammar._mask

    def kept(*arguments: Any) -> Any:
        released.wait(60)
        return mask(*arguments)

    matcher = compiler.regex("[l-p]{20}").start()
    monkeypatch.setattr(grammar, "_mask", kept)
    monkeypatch.setattr(grammar, "_DEAR_SECONDS", -1)
    monkeypatch.setattr(grammar, "_MASK_SECONDS", 0.2)
    matcher.accept(int(matcher.allowed().nonzero()[-1]))
    waits_until_released(matcher, released, 0.6)


def test_a_mask_that_waits_for_those_of_others_is_late_and_not_refused(
    compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, is_working = threading.Event(), threading.Event()
    threads = ThreadPoolExecutor(1)
    monkeypatch.setattr(grammar, "_DEAR_SECONDS", -1)
    monkeypatch.setattr(grammar, "_LATE_SECONDS", 60)
    monkeypatch.setattr(compiler, "_threads", threads)
    matcher = compiler.regex("[g-k]{20}").start()
    first = matcher.allowed()
    threads.submit(lambda: (is_working.set(), released.wait(60)))
    assert is_working.wait(60)
    matcher.accept(int(first.nonzero()[-1]))
    assert matcher.is_late
    waits_until_released(matcher, released, 0.3)
    assert not matcher.is_late
    threads.shutdown()
