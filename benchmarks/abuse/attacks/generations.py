"""Generations that are dear to read, to constrain or to answer."""

import json
from functools import cache
from typing import Any

from benchmarks.abuse.attacker import Attacker
from benchmarks.abuse.attacks.registry import attack

_TOKENS = 4000


async def _generate(attacker: Attacker, **fields: Any) -> None:
    await attacker.post("/generate", {"prompt": "Hi", "max_tokens": 16, **fields})


@cache
def _long_prompt() -> bytes:
    return json.dumps({"prompt": "all the world is a stage " * 160_000, "max_tokens": 1}).encode()


@attack("long prompt")
async def long_prompt(attacker: Attacker) -> None:
    """A prompt of 4 MB."""
    await attacker.post("/generate", _long_prompt())


@attack("full prompts")
async def full_prompts(attacker: Attacker) -> None:
    """128 prompts of 30 KB each, the most that a request may have."""
    await _generate(attacker, prompt=["a b c d e " * 3000] * 128, max_tokens=1)


@attack("words without end")
async def words_without_end(attacker: Attacker) -> None:
    """128 prompts that are one word of 30 KB each, which a tokenizer merges pair by pair."""
    await _generate(attacker, prompt=[f"{index}" + "ab" * 15_000 for index in range(128)], max_tokens=1)


@attack("tiny messages")
async def tiny_messages(attacker: Attacker) -> None:
    """2,048 messages of one letter."""
    await _generate(attacker, prompt=None, messages=[{"role": "user", "content": "a"}] * 2048)


@attack("stops at the limit")
async def stops_at_the_limit(attacker: Attacker) -> None:
    """64 texts of 1,000 characters to stop at, in an answer as long as it gets, streamed."""
    stops = [f"{index}" + "a" * 990 for index in range(64)]
    await attacker.stream("/generate", {"prompt": "Hi", "max_tokens": _TOKENS, "stop": stops, "stream": True})


@attack("classes")
async def classes(attacker: Attacker) -> None:
    """A regular expression of 16 KB of letters' classes, another one each time."""
    await _generate(attacker, regex=rf"{attacker.number()}" + r"\p{L}" * 3200)


@attack("repetitions")
async def repetitions(attacker: Attacker) -> None:
    """A regular expression that repeats a repetition."""
    await _generate(attacker, regex=rf"{attacker.number()}(a{{1000}}){{1000}}")


@attack("alternatives")
async def alternatives(attacker: Attacker) -> None:
    """A short regular expression of which every token leads to many states."""
    await _generate(attacker, regex=rf"(.|{attacker.number()})*a.{{400}}(b|.){{400}}", max_tokens=64)


@attack("deep schema")
async def deep_schema(attacker: Attacker) -> None:
    """A schema of 30 objects inside each other, another one each time."""
    schema: dict[str, Any] = {"type": "string", "const": f"{attacker.number()}"}
    for _ in range(30):
        schema = {"type": "object", "properties": {"a": schema}}
    await _generate(attacker, json_schema=schema)


@attack("wide schema")
async def wide_schema(attacker: Attacker) -> None:
    """A schema of 60 KB: an enumeration within alternatives, another one each time."""
    number = attacker.number()
    choices = [{"enum": [f"{number}-{index}-{inner}" for inner in range(40)]} for index in range(100)]
    await _generate(attacker, json_schema={"anyOf": choices})


@attack("many tools")
async def many_tools(attacker: Attacker) -> None:
    """Functions with arguments of long patterns, others each time."""
    number = attacker.number()
    arguments = {f"a{index}": {"type": "string", "pattern": f"^[a-z]{{1,{50 + index}}}$"} for index in range(5)}
    tools = [
        {"type": "function", "function": {"name": f"f{number}_{index}", "parameters": {"properties": arguments}}}
        for index in range(3)
    ]
    messages = [{"role": "user", "content": "Hi"}]
    await _generate(attacker, prompt=None, messages=messages, tools=tools, tool_choice="required")


@attack("flood", at_once=100)
async def flood(attacker: Attacker) -> None:
    """100 streams of one tenant at once."""
    await attacker.stream("/generate", {"prompt": "Hi", "max_tokens": _TOKENS, "stream": True})


@attack("answers", at_once=8)
async def answers(attacker: Attacker) -> None:
    """32 answers at once, each with the 20 likeliest tokens beside every one."""
    await _generate(attacker, n=32, max_tokens=200, temperature=1, logprobs=True, top_logprobs=20)


@attack("left streams", at_once=16)
async def left_streams(attacker: Attacker) -> None:
    """Streams that are left after their first token."""
    await attacker.stream("/generate", {"prompt": "Hi", "max_tokens": _TOKENS, "stream": True}, pieces=1)


@attack("strength", at_once=2)
async def strength(attacker: Attacker) -> None:
    """An adapter's strength that no float has, and one that is beyond bounds."""
    for given in ("1e30", "1e400", "-1e30"):
        await attacker.post("/generate", f'{{"prompt": "Hi", "adapter_id": "none", "strength": {given}}}'.encode())
