"""Old answers beside those of a model here."""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from osora.errors import OsoraAPIError
from osora.migrate.agreement import agree
from osora.migrate.each import each
from osora.migrate.prompts import Prompt, answer_text
from osora.sdk import Osora

# Refusals that are about one prompt.
_OF_A_PROMPT = (400, 413, 422)


@dataclass(frozen=True)
class Disagreement:
    line: int
    prompt: str
    old: str
    new: str
    f1: float


@dataclass
class Comparison:
    """Figures over all answers. `fields`: by a JSON field's name, how often it is in either answer and how often the
    same. `answered_by`: the adapters (or bases) that really gave the new answers. `failed`: by line, why there is none.
    """

    rows: int = 0
    exact: int = 0
    same: int = 0
    f1_sum: float = 0.0
    json_rows: int = 0
    fields: Counter[str] = field(default_factory=Counter)
    same_fields: Counter[str] = field(default_factory=Counter)
    answered_by: Counter[str] = field(default_factory=Counter)
    failed: dict[int, str] = field(default_factory=dict)
    disagreements: list[Disagreement] = field(default_factory=list)

    def share(self, count: float) -> float:
        return count / self.rows if self.rows else 0.0

    @property
    def field_match(self) -> float | None:
        """Share of JSON fields that are the same; None where no old answer is JSON."""
        return self.same_fields.total() / self.fields.total() if self.fields else None


class Model:
    """A model of the service, by any name that it has there."""

    def __init__(self, osora: Osora, name: str, max_tokens: int | None) -> None:
        is_base = any(base["name"] == name for base in osora.bases.list())
        self._options: dict[str, Any] = {
            "base" if is_base else "adapter": name,
            "temperature": 0,
            "max_tokens": max_tokens,
        }
        self._osora = osora

    def ask(self, prompt: Prompt) -> tuple[str, str]:
        """Its likeliest answer, and what really gave it. Raises OsoraError."""
        asked: Any = prompt.text if prompt.messages is None else prompt.asked
        answer = self._osora.generate(asked, **self._options, **prompt.rest)
        choice: dict[str, Any] = dict(answer["choices"][0])
        said = answer_text({"content": choice.get("text"), "tool_calls": choice.get("tool_calls")})
        return said, str((answer.get("receipt") or {}).get("adapter_name") or answer["base"])


def compare(
    prompts: Iterable[Prompt],
    new: Model,
    against: Model | None,
    *,
    concurrency: int,
    show: int,
    on_answer: Callable[[], None] = lambda: None,
) -> Comparison:
    """Asks `new` every prompt; beside its answers stand those of the file (all have one), or `against`'s.

    Of the disagreements, the `show` that are least alike are kept. Raises OsoraError for what no other prompt would
    fare better with.
    """
    found = Comparison()
    least_alike: list[tuple[float, int, Disagreement]] = []

    def ask(prompt: Prompt) -> tuple[str, str, str]:
        if against is not None:
            return against.ask(prompt)[0], *new.ask(prompt)
        assert prompt.answer is not None
        return answer_text(prompt.answer), *new.ask(prompt)

    with closing(each(ask, prompts, concurrency)) as answers:
        for prompt, future in answers:
            on_answer()
            try:
                old, said, by = future.result()
            except OsoraAPIError as error:
                if error.status not in _OF_A_PROMPT:
                    raise
                found.failed[prompt.line] = error.message
                continue
            disagreement = _count(found, prompt, old, said, by)
            if disagreement and show:
                heapq.heappush(least_alike, (-disagreement.f1, -prompt.line, disagreement))
                if len(least_alike) > show:
                    heapq.heappop(least_alike)
    found.disagreements = [one for *_, one in sorted(least_alike, reverse=True, key=lambda each: each[:2])]
    return found


def _count(found: Comparison, prompt: Prompt, old: str, new: str, by: str) -> Disagreement | None:
    agreement = agree(old, new)
    found.rows += 1
    found.exact += agreement.exact
    found.same += agreement.same
    found.f1_sum += agreement.f1
    found.answered_by[by] += 1
    if agreement.fields is not None:
        found.json_rows += 1
        found.fields.update(name for name, _ in agreement.fields)
        found.same_fields.update(name for name, equal in agreement.fields if equal)
    return None if agreement.same else Disagreement(prompt.line, prompt.shown, old, new, agreement.f1)
