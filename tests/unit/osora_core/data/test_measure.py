"""A measure counts what a job trains on, and names what it cannot."""

import copy
import json
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from osora_core.data import Renderer
from osora_core.data.conversation import conversations_of
from osora_core.data.measure import Effort, Measure, measure
from osora_core.data.measure.bounds import Bound
from osora_data import Row
from tests.support.tokenizers import NAMES, TEMPLATES, tokenizer_of

LONG = 1_000_000
# Leaves out what the system says, and refuses tools' results.
DEAF = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    "{% if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return tokenizer_of("gpt-2", "chatml")


def chat(*messages: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in messages]}


def rows(*values: dict[str, Any]) -> list[Row]:
    formats = {"messages": "chat", "prompt": "completion", "input": "preference"}
    return [
        Row(line, line, next(formats[key] for key in value if key in formats), value)  # type: ignore[arg-type]
        for line, value in enumerate(values, start=1)
    ]


def measured(values: list[Row], tokenizer: PreTrainedTokenizerBase, limit: int, effort: Effort = Effort()) -> Measure:  # noqa: B008
    size = sum(len(json.dumps(row.value)) for row in values)
    return measure(values, tokenizer, limit, count=len(values), bytes=size, effort=effort)


def talk(index: int) -> dict[str, Any]:
    return chat(("user", f"help {index} " + "please " * (index % 7)), ("assistant", f"order {index % 3}"))


def test_it_counts_what_a_job_trains_on(tokenizer: PreTrainedTokenizerBase) -> None:
    values = [talk(index) for index in range(40)]
    examples = [Renderer(tokenizer, LONG).render(value, 1) for value in values]
    found = measured(rows(*values), tokenizer, LONG)
    assert (found.rows, found.counted, found.complete) == (40, 40, True)
    assert found.tokens == sum(map(len, examples))
    assert found.trained_tokens == sum(example.loss_tokens for example in examples)
    assert found.dropped == found.truncated
    assert (found.dropped.rows, found.dropped.tokens) == (40, found.tokens)
    assert sum(bin["rows"] for bin in found.histogram) == 40
    assert Measure.of(json.loads(json.dumps(asdict(found)))) == found


def test_rows_over_the_limit_are_named_with_their_lengths(tokenizer: PreTrainedTokenizerBase) -> None:
    values = [talk(index) for index in range(40)]
    lengths = [len(Renderer(tokenizer, LONG).render(value, 1)) for value in values]
    limit = sorted(lengths)[20]
    over = [{"line": line, "row": line, "tokens": n} for line, n in enumerate(lengths, start=1) if n > limit]
    found = measured(rows(*values), tokenizer, limit)
    assert (found.rows_over, found.over) == (len(over), over)
    fitting = [n for n in lengths if n <= limit]
    assert (found.dropped.rows, found.dropped.tokens) == (len(fitting), sum(fitting))
    assert found.truncated.rows_cut == len(over)
    left = [Renderer(tokenizer, LONG).render(value, 1).mask[:limit] for value in values]
    assert found.truncated.tokens == sum(len(mask) for mask in left if any(mask))
    assert found.truncated.trained_tokens == sum(map(sum, left))
    at_most = sum(bin["rows"] for bin in found.histogram if bin["to"] <= limit)
    assert at_most == len(fitting), "a bin ends at the limit"


def test_truncated_to_nothing_is_no_row(tokenizer: PreTrainedTokenizerBase) -> None:
    long = chat(("user", "help " * 200), ("assistant", "yes"))
    short = talk(1)
    limit = len(Renderer(tokenizer, LONG).render(short, 1))
    found = measured(rows(short, long), tokenizer, limit)
    assert (found.truncated.rows, found.truncated.rows_cut) == (1, 1)
    assert found.truncated.trained_tokens == found.dropped.trained_tokens > 0


def test_both_answers_of_a_preference_count(tokenizer: PreTrainedTokenizerBase) -> None:
    value = {
        "input": chat(("user", "help")),
        "preferred_output": chat(("assistant", "yes"))["messages"],
        "non_preferred_output": chat(("assistant", "no " * 30))["messages"],
    }
    pair = Renderer(tokenizer, LONG).preference(value, 1)
    found = measured(rows(value), tokenizer, len(pair.rejected) - 1)
    assert (found.tokens, found.trained_tokens) == (len(pair), pair.loss_tokens)
    assert found.over == [{"line": 1, "row": 1, "tokens": len(pair.rejected)}]
    (sample,) = found.samples
    for side, answer in (("segments", "yes"), ("rejected", "no no")):
        assert answer in "".join(piece["text"] for piece in sample[side] if piece["trained"])


def test_a_large_file_is_sampled_and_its_long_rows_are_not(tokenizer: PreTrainedTokenizerBase) -> None:
    short, long = 2000, {17, 1200, 1999}
    values = [chat(("user", "help " * 100), ("assistant", "no")) if i in long else talk(i) for i in range(short)]
    everything = measured(rows(*values), tokenizer, 300)
    found = measured(rows(*values), tokenizer, 300, Effort(rows=500))
    assert found.rows == short
    assert 400 < found.counted < 620
    assert found.complete
    assert [row["line"] - 1 for row in found.over] == sorted(long)
    assert found.over == everything.over
    assert found.tokens == pytest.approx(everything.tokens, rel=0.05)
    assert found.trained_tokens == pytest.approx(everything.trained_tokens, rel=0.05)
    assert sum(bin["rows"] for bin in found.histogram) == pytest.approx(short, abs=10)
    assert found == measured(rows(*values), tokenizer, 300, Effort(rows=500)), "the same sample each time"


def test_it_ends_in_time_and_says_that_it_did(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1000))
    # That of the measure alone: other threads of this process go on by the real one.
    monkeypatch.setattr("osora_core.data.measure.time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    values = [talk(index) for index in range(100)]
    found = measured(rows(*values), tokenizer, LONG, Effort(seconds=50.0))
    assert not found.complete
    assert found.counted == 50
    assert sum(bin["rows"] for bin in found.histogram) == pytest.approx(100, abs=4)


def test_samples_show_what_is_trained(tokenizer: PreTrainedTokenizerBase) -> None:
    values = [
        chat(("user", f"who? {i}"), ("assistant", "me"), ("user", "and?"), ("assistant", "you")) for i in range(9)
    ]
    found = measured(rows(*values), tokenizer, LONG)
    assert len(found.samples) == 3
    assert [sample["line"] for sample in found.samples] == sorted({sample["line"] for sample in found.samples})
    for sample in found.samples:
        example = Renderer(tokenizer, LONG).render(values[sample["line"] - 1], 1)
        assert "".join(piece["text"] for piece in sample["segments"]) == tokenizer.decode(example.tokens)
        assert [piece["text"] for piece in sample["segments"] if piece["trained"]] == ["me<|im_end|>", "you<|im_end|>"]


def test_a_sample_stays_readable(tokenizer: PreTrainedTokenizerBase) -> None:
    turns = [("user", "more " * 1000), ("assistant", "yes")] * 60
    (sample,) = measured(rows(chat(*turns)), tokenizer, LONG).samples
    assert len(sample["segments"]) < 60
    assert sum(len(piece["text"]) for piece in sample["segments"]) < 40_000
    assert sample["segments"][1] == {"text": "yes<|im_end|>", "trained": True}


def test_a_role_that_the_template_leaves_out_is_told() -> None:
    deaf = copy.deepcopy(tokenizer_of("gpt-2", "chatml"))
    deaf.chat_template = DEAF
    values = [chat(("system", "be kind"), ("user", "help"), ("assistant", "no"))] * 4 + [talk(1)]
    (warning,) = measured(rows(*values), deaf, LONG).warnings
    assert (warning["code"], warning["count"], warning["lines"]) == ("role_left_out", 4, [1, 2, 3, 4])
    assert "`system`" in warning["message"]


def test_a_row_that_the_base_refuses_is_named() -> None:
    deaf = copy.deepcopy(tokenizer_of("gpt-2", "chatml"))
    deaf.chat_template = DEAF
    refused = chat(("user", "help"), ("tool", "it is 5"), ("assistant", "no"))
    found = measured(rows(talk(1), refused, talk(2)), deaf, LONG)
    assert (found.rows_refused, found.counted, found.dropped.rows) == (1, 3, 2)
    (row,) = found.refused
    assert row["line"] == 2
    assert "no tools here" in row["problem"]
    assert not row["problem"].startswith("line")


def texts() -> st.SearchStrategy[str]:
    pieces = st.sampled_from(["a", " ", "\n", "ﷺ", "é", "😀", "東", "<|im_end|>", "12", "ﬁ", "\u00a0", "▁"])
    return st.lists(pieces, min_size=1, max_size=12).map("".join)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", NAMES)
def test_no_row_has_more_tokens_than_its_bound(kind: str, template: str) -> None:
    tokenizer = tokenizer_of(kind, template)
    bound, renderer = Bound(tokenizer, conversations_of(tokenizer)), Renderer(tokenizer, LONG)

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(texts(), min_size=2, max_size=8).filter(lambda said: len(said) % 2 == 0))
    def check(said: list[str]) -> None:
        roles = ["user", "assistant"] * 4
        value = chat(*zip(roles, said, strict=False))
        most = bound.of(value)
        assert most is not None
        assert len(renderer.render(value, 1)) <= most
        plain = {"prompt": said[0], "completion": said[1]}
        most = bound.of(plain)
        assert most is not None
        assert len(renderer.render(plain, 1)) <= most

    check()
