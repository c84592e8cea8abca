"""What a schema or a pattern constrains always fits it, however wild the sampling."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osora_core.errors import UserError
from osora_core.inference import InferenceEngine, Request, SamplingParams
from osora_core.inference.grammar import GrammarCompiler
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
