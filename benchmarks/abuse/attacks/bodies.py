"""Bodies that are dear to check."""

import json
from functools import cache

from benchmarks.abuse.attacker import Attacker
from benchmarks.abuse.attacks.registry import attack

_MEBIBYTES = 2**20


def _generation(field: str, value: str, prompt: str = '"prompt": "Hi"') -> bytes:
    return f'{{{prompt}, "max_tokens": 1, "{field}": {value}}}'.encode()


def _job(osora: str) -> bytes:
    return f'{{"model": "osora-tiny", "training_file": "file-none", "osora": {osora}}}'.encode()


@cache
def _rates(count: int) -> bytes:
    return _job(json.dumps({"learning_rate": [0.001 + index * 1e-7 for index in range(count)]}))


@attack("rates")
async def rates(attacker: Attacker) -> None:
    """40,000 learning rates, each another one, for a sweep."""
    await attacker.post("/jobs", _rates(40_000))


@cache
def _zeros() -> bytes:
    return b'{"messages": [' + b"0," * 1_900_000 + b"0]}"


@attack("zero messages")
async def zero_messages(attacker: Attacker) -> None:
    """1.9 million messages that are numbers."""
    await attacker.post("/generate", _zeros())


@cache
def _wrong_messages() -> bytes:
    return json.dumps({"messages": [{"role": 0, "x": 0}] * 30_000}).encode()


@attack("wrong messages")
async def wrong_messages(attacker: Attacker) -> None:
    """30,000 messages with two faults each, below every limit of a body."""
    await attacker.post("/generate", _wrong_messages())


@cache
def _stop_tokens() -> bytes:
    return _generation("stop_tokens", "[" + "1," * 1_900_000 + "1]")


@attack("stop tokens")
async def stop_tokens(attacker: Attacker) -> None:
    """1.9 million tokens to stop at."""
    await attacker.post("/generate", _stop_tokens())


@cache
def _stops() -> bytes:
    return _generation("stop", json.dumps([f"{index:x}" for index in range(300_000)]))


@attack("stop strings")
async def stop_strings(attacker: Attacker) -> None:
    """300,000 texts to stop at."""
    await attacker.post("/generate", _stops())


@cache
def _biases() -> bytes:
    return _generation("logit_bias", json.dumps({f"x{index}": "y" for index in range(200_000)}))


@attack("logit biases")
async def logit_biases(attacker: Attacker) -> None:
    """200,000 biases of tokens that are none."""
    await attacker.post("/generate", _biases())


@cache
def _long_name() -> bytes:
    return _generation("x" * int(3.9 * _MEBIBYTES), "1")


@attack("long name")
async def long_name(attacker: Attacker) -> None:
    """A field that nobody knows, with a name of 3.9 MiB."""
    await attacker.post("/generate", _long_name())


@cache
def _many_names() -> bytes:
    return json.dumps({"prompt": "Hi", **{f"field-{index}": 0 for index in range(45_000)}}).encode()


@attack("many names")
async def many_names(attacker: Attacker) -> None:
    """45,000 fields that nobody knows."""
    await attacker.post("/generate", _many_names())


@cache
def _deep() -> bytes:
    return b'{"messages": ' + b"[" * 4_000_000


@attack("deep body")
async def deep_body(attacker: Attacker) -> None:
    """Four million lists inside each other."""
    await attacker.post("/generate", _deep())


@cache
def _quotes() -> bytes:
    return b'{"prompt": "' + b'\\",' * 1_390_000


@attack("open text")
async def open_text(attacker: Attacker) -> None:
    """A text of quotes and commas that has no end."""
    await attacker.post("/generate", _quotes())


@attack("filters")
async def filters(attacker: Attacker) -> None:
    """A list of jobs by 3,500 metadata."""
    await attacker.ask("GET", "/jobs?" + "&".join(f"metadata[k{index}]=v" for index in range(3500)))


@attack("over the limit")
async def over_the_limit(attacker: Attacker) -> None:
    """A body of 16 MiB where four are allowed."""
    await attacker.post("/generate", _generation("user", '"' + "x" * 16 * _MEBIBYTES + '"'))


@attack("keyless bodies", at_once=8)
async def keyless_bodies(attacker: Attacker) -> None:
    """Eight clients without a key, with 3.8 MiB of JSON each."""
    await attacker.post("/generate", _zeros(), keyless=True)
