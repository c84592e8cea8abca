"""A file's rows asked of two models: how often each says what the file says, and where the two differ."""

import asyncio
import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from osora.errors import OsoraAPIError, OsoraError, OsoraUsageError
from osora.migrate.agreement import agree
from osora.migrate.prompts import Prompt, answer_text, read_prompts
from osora.sdk import AsyncOsora

_AT_ONCE = 4
# Refusals that are about one prompt, and not about the next.
_OF_A_PROMPT = (400, 413, 422)
# What `agree` calls an answer that is no JSON where the file's is.
_NO_JSON = "(the whole)"


@dataclass
class Score:
    """How like the file's answers a model's are."""

    rows: int = 0
    exact: int = 0
    fields: Counter[str] = field(default_factory=Counter)
    same_fields: Counter[str] = field(default_factory=Counter)

    def add(self, expected: str, said: str) -> None:
        found = agree(expected, said)
        self.rows += 1
        self.exact += found.exact
        for name, is_same in found.fields or ():
            self.fields[name] += 1
            self.same_fields[name] += is_same

    @property
    def exact_match(self) -> float | None:
        return self.exact / self.rows if self.rows else None

    @property
    def field_match(self) -> float | None:
        """The share of JSON fields that are the same; None where no answer of the file is JSON."""
        return self.same_fields.total() / self.fields.total() if self.fields else None

    def share_of(self, name: str) -> float | None:
        """How often a field is the same, where it is at all."""
        return self.same_fields[name] / self.fields[name] if self.fields[name] else None


@dataclass(frozen=True)
class Row:
    """A line of the file, and what both said. `expected` is None where the file has no answer, a model's answer where
    it was refused one, for the reason in `failed`."""

    line: int
    prompt: str
    expected: str | None
    answers: tuple[str | None, str | None]
    right: tuple[bool, bool]
    alike: float
    failed: str | None = None

    @property
    def differs(self) -> bool:
        return self.failed is None and self.answers[0] != self.answers[1]


@dataclass
class Comparison:
    """All rows so far."""

    total: int
    scores: tuple[Score, Score] = field(default_factory=lambda: (Score(), Score()))
    rows: list[Row] = field(default_factory=list)

    @property
    def same(self) -> int:
        """Rows to which both said the same."""
        return sum(not row.differs and row.failed is None for row in self.rows)

    def in_order(self) -> list[Row]:
        """Those that differ first, the least alike at the top; then what failed; then what is the same."""
        return sorted(self.rows, key=lambda row: (not row.differs, row.failed is None, row.alike, row.line))

    def fields(self) -> list[tuple[str, int, float | None, float | None]]:
        """By JSON field of the file's answers: in how many rows, and how often each model has it right; the worst
        first."""
        left, right = self.scores
        found = [
            (name, max(one.fields[name] for one in self.scores), left.share_of(name), right.share_of(name))
            for name in left.fields.keys() | right.fields.keys()
            if name != _NO_JSON
        ]
        return sorted(found, key=lambda field: (min(share or 0.0 for share in field[2:]), field[0]))


@dataclass(frozen=True)
class Contender:
    """A model by any name that it has in the service."""

    name: str
    is_base: bool = False

    async def answer(self, osora: AsyncOsora, prompt: Prompt, max_tokens: int | None) -> str:
        """Its likeliest answer, as text. Raises OsoraError."""
        asked = prompt.text if prompt.messages is None else prompt.asked
        target = {"base": self.name} if self.is_base else {"adapter": self.name}
        given = await osora.generate(asked, temperature=0, max_tokens=max_tokens, **target, **prompt.rest)  # type: ignore[arg-type]
        choice = given["choices"][0]
        return answer_text({"content": choice.get("text"), "tool_calls": choice.get("tool_calls")})


async def prompts_of(content: bytes, filename: str, most: int) -> list[Prompt]:
    """The first prompts of a file. Raises OsoraUsageError, which names the line, for one that is none."""
    return await asyncio.to_thread(_read, content, filename, most)


async def compare(
    osora: AsyncOsora,
    prompts: Sequence[Prompt],
    left: Contender,
    right: Contender,
    *,
    max_tokens: int | None = None,
    show: Callable[[Comparison], None] = lambda _: None,
) -> Comparison:
    """Ask both for each prompt; `show` is told after each row. Raises OsoraError for what no other row would fare
    better with."""
    found = Comparison(len(prompts))
    turns = asyncio.Semaphore(_AT_ONCE)

    async def ask(prompt: Prompt) -> None:
        async with turns:
            row = await _row(osora, prompt, left, right, max_tokens)
        if row.failed is None and row.expected is not None:
            for score, said in zip(found.scores, row.answers, strict=True):
                score.add(row.expected, said or "")
        found.rows.append(row)
        show(found)

    try:
        async with asyncio.TaskGroup() as group:
            for prompt in prompts:
                group.create_task(ask(prompt))
    except* OsoraError as errors:
        raise errors.exceptions[0] from None
    return found


async def _row(osora: AsyncOsora, prompt: Prompt, left: Contender, right: Contender, max_tokens: int | None) -> Row:
    expected = None if prompt.answer is None else answer_text(prompt.answer)
    try:
        one, other = await asyncio.gather(
            left.answer(osora, prompt, max_tokens), right.answer(osora, prompt, max_tokens)
        )
    except OsoraAPIError as error:
        if error.status not in _OF_A_PROMPT:
            raise
        return Row(prompt.line, prompt.shown, expected, (None, None), (False, False), 0.0, error.message)
    right_ones = (False, False) if expected is None else (agree(expected, one).same, agree(expected, other).same)
    return Row(prompt.line, prompt.shown, expected, (one, other), right_ones, agree(one, other).f1)


def _read(content: bytes, filename: str, most: int) -> list[Prompt]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        path.write_bytes(content)
        try:
            found = list(itertools.islice(read_prompts(path), most))
        except OsoraUsageError as error:
            raise OsoraUsageError(str(error).replace(str(path), f"{filename}:"), error.next_action) from None
    return found
