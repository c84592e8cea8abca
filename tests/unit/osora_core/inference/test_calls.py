"""Calls in an answer: what may be generated, and how it is read as it comes."""

import json
from typing import Any

import pytest

from osora_core.errors import UserError
from osora_core.inference.call_reader import Call, CallReader
from osora_core.inference.calls import ToolUse
from osora_core.inference.grammar import GrammarCompiler
from osora_core.inference.text import TextStream
from osora_core.tools.convention import FORMAT
from osora_core.tools.format import CallFormat
from tests.support.conventions import tokenizer_of
from tests.support.tokenizers import tokenizer_of as small_tokenizer
from tests.support.tool_conventions import TOOL_CONVENTIONS

LLAMA = CallFormat('{"name": "', '", "parameters": ', "}", None, None)
ROME = Call("weather", '{"city": "Rome", "tags": ["}", "\\"{"]}')
CLOSE = Call("close", "{}")
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}},
    },
}
ONE = f'<tool_call>\n{{"name": "weather", "arguments": {ROME.arguments}}}\n</tool_call>'
TWO = ONE + '\n<tool_call>\n{"name": "close", "arguments": {}}\n</tool_call>'


CITY = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}'


def ours() -> GrammarCompiler:
    tokenizer = small_tokenizer("osora-tiny")
    return GrammarCompiler(tokenizer, len(tokenizer), [int(tokenizer.eos_token_id)])


def reading(use: ToolUse, text: str, step: int) -> tuple[str, list[Call]]:
    reader, said, found = CallReader(use), "", []
    for begin in range(0, len(text), step):
        more, calls = reader.push(text[begin : begin + step])
        said += more
        found += calls
    return said + reader.flush(), found


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("format", "text", "said", "calls"),
    [
        (FORMAT, "Hello.", "Hello.", []),
        (FORMAT, "a <tool_cal", "a <tool_cal", []),
        (FORMAT, ONE, "", [ROME]),
        (FORMAT, TWO, "", [ROME, CLOSE]),
        (FORMAT, "Let me see.\n" + TWO, "Let me see.", [ROME, CLOSE]),
        (FORMAT, ONE[:-1], "", [ROME]),
        (FORMAT, ONE[:-14], "", [ROME]),
        (FORMAT, ONE[:-25], ONE[:-25], []),
        (FORMAT, "Let me see.\n" + ONE[:20], "Let me see." + ONE[:20], []),
        (FORMAT, TWO[:-16], "", [ROME]),
        (FORMAT, "Let me see.\n" + TWO[:-16], "Let me see.", [ROME]),
        (LLAMA, '{"name": "close", "parameters": {}}', "", [CLOSE]),
        (LLAMA, '{"names": 1}', '{"names": 1}', []),
        (LLAMA, '{"na', '{"na', []),
        (LLAMA, 'see {"name": "close", "parameters": {}}', 'see {"name": "close", "parameters": {}}', []),
    ],
)  # fmt: skip
def test_an_answer_is_read_alike_however_it_comes(
    format: CallFormat, text: str, said: str, calls: list[Call], step: int
) -> None:
    assert reading(ToolUse.of(format, ours()), text, step) == (said, calls)


def test_text_is_held_back_no_longer_than_it_may_begin_a_call() -> None:
    reader = CallReader(ToolUse.of(FORMAT, ours()))
    assert reader.push("see <tool") == ("see ", [])
    assert reader.push("s>") == ("<tools>", [])


def test_a_marker_that_is_a_token_is_not_what_is_spelled_like_it() -> None:
    tokenizer = tokenizer_of(TOOL_CONVENTIONS["Mistral 0.3"])
    grammars = GrammarCompiler(tokenizer, len(tokenizer), [int(tokenizer.eos_token_id)])
    format = CallFormat('[TOOL_CALLS] [{"name": "', '", "arguments": ', "}]", '}, {"name": "', None)
    use = ToolUse.of(format, grammars)
    marker = grammars.controls["[TOOL_CALLS]"]
    assert list(use.shown) == [marker]
    text = ' [{"name": "close", "arguments": {}}]'
    assert reading(use, "[TOOL_CALLS]" + text, 3) == ("[TOOL_CALLS]" + text, [])
    assert reading(use, use.shown[marker] + text, 3) == ("", [CLOSE])
    # Where a call is cut off, the token reads as what it is.
    assert reading(use, use.shown[marker] + text[:9], 3) == ("[TOOL_CALLS]" + text[:9], [])
    ids = tokenizer.encode("moo", add_special_tokens=False)
    stream = TextStream(tokenizer, ids, (), use.shown)
    shown = "".join(stream.push(token)[0] for token in (*ids, marker, *ids)) + stream.flush()
    assert shown.replace(" ", "") == f"moo{use.shown[marker]}moo"


def test_as_many_tools_as_there_may_be_are_compiled() -> None:
    grammars = ours()
    use = ToolUse.of(FORMAT, grammars)
    properties = {f"property_{index}": {"type": "string", "description": "x" * 20} for index in range(12)}
    tools = [
        {
            "type": "function",
            "function": {"name": f"tool_{index}", "parameters": {"type": "object", "properties": properties}},
        }
        for index in range(128)
    ]
    assert len(json.dumps(tools)) > 120_000
    for choice in ("auto", "required", "none"):
        assert grammars.lark("tools", use.grammar(tools, choice, parallel=True)).start().allowed().any()


def test_what_cannot_be_compiled_is_the_fault_of_the_tools() -> None:
    grammars = ours()
    broken = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"x": {"type": "nonsense"}}}}}
    lark = ToolUse.of(FORMAT, grammars).grammar([TOOL, broken], "auto", parallel=True)
    with pytest.raises(UserError) as refused:
        grammars.lark("tools", lark)
    assert refused.value.message == "tools cannot be used: the parameters of f: Invalid type: nonsense"
    assert refused.value.param == "tools"


def test_a_format_that_no_grammar_knows_is_a_remark() -> None:
    grammars = ours()
    path = {"type": "string", "format": "path", "default": "/tmp"}
    parameters = {"properties": {"format": path, "default": {"$ref": "#/$defs/path"}}, "$defs": {"path": path}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    lark = ToolUse.of(FORMAT, grammars).grammar([tool], "auto", parallel=True, schema=path)
    assert grammars.lark("tools", lark).start().allowed().any()
    assert grammars.json_schema({"anyOf": [path, {"const": {"format": "path"}}]}).start().allowed().any()
    known = {**tool, "function": {"name": "f", "parameters": {"properties": {"x": {**path, "format": "ipv4"}}}}}
    assert '"format": "ipv4"' in ToolUse.of(FORMAT, grammars).grammar([known], "auto", parallel=True)


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_an_object_has_no_properties_but_those_that_its_schema_names(choice: str) -> None:
    grammars = ours()
    use = ToolUse.of(FORMAT, grammars)
    tokenizer = small_tokenizer("osora-tiny")

    def accepts(arguments: str, tool: Any = TOOL) -> bool:
        matcher = grammars.lark("tools", use.grammar([tool], choice, parallel=True)).start()
        text = f'<tool_call>\n{{"name": "weather", "arguments": {arguments}}}\n</tool_call>'
        for token in tokenizer.encode(text, add_special_tokens=False):
            if not matcher.allowed()[token]:
                return False
            matcher.accept(token)
        return True

    assert accepts("{}")
    assert accepts('{"city": "Rome"}')
    assert not accepts('{"city": "Bern"}')
    assert not accepts('{"city":"Rome"}')
    assert not accepts('{"city": "Rome", "x": 1}')
    parameters = {**TOOL["function"]["parameters"], "additionalProperties": True}
    assert accepts(
        '{"city": "Rome", "x": 1}', {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    )


def test_an_answer_that_does_not_call_keeps_to_its_own_schema() -> None:
    grammars = ours()
    use = ToolUse.of(FORMAT, grammars)
    tokenizer = small_tokenizer("osora-tiny")
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    for text, fits in (('{"a": true}', True), ("Hello", False), (CITY, True)):
        matcher = grammars.lark("tools", use.grammar([TOOL], "auto", parallel=True, schema=schema)).start()
        allowed = []
        for token in tokenizer.encode(text, add_special_tokens=False):
            allowed.append(bool(matcher.allowed()[token]))
            if not allowed[-1]:
                break
            matcher.accept(token)
        assert all(allowed) == fits
