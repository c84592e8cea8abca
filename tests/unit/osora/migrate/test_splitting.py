import json
from pathlib import Path
from typing import Any

import pytest

from osora.errors import OsoraUsageError
from osora.migrate.journal import Journal
from osora.migrate.prompts import Prompt
from osora.migrate.splitting import Split, held_out, write_split


def prompts(*texts: str) -> list[Prompt]:
    return [Prompt(line, None, text, None, {}) for line, text in enumerate(texts, 1)]


def split(folder: Path, asked: list[Prompt], answers: dict[str, Any], **options: Any) -> Split:
    share, seed = options.get("share", 0.3), options.get("seed", 0)
    with Journal(folder / "journal.jsonl", {"model": "m"}) as journal:
        for prompt in {prompt.key: prompt for prompt in reversed(asked)}.values():
            answer = answers.get(prompt.text or "", {"content": "yes"})
            entry = {"key": prompt.key, "message": answer, "finish_reason": answer.get("finish_reason", "stop")}
            if prompt.key not in journal:
                journal.add(entry | {"usage": {"prompt_tokens": 2, "completion_tokens": 1}})
        return write_split(asked, journal, share, seed, folder / "train.jsonl", folder / "held.jsonl")


def rows(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5, 0.9])
def test_a_share_is_held_out_whatever_the_order(share: float) -> None:
    groups = [f"group {number}" for number in range(100)]
    chosen = held_out(groups, share, 1)
    assert len(chosen) == share * 100
    assert held_out(reversed(groups), share, 1) == chosen
    assert held_out(groups, share, 2) != chosen


@pytest.mark.parametrize(("groups", "count"), [(["a"], 0), (["a", "b"], 1), (["a"] * 9 + ["b"], 1)])
def test_neither_side_is_empty_where_there_are_two_groups(groups: list[str], count: int) -> None:
    assert len(held_out(groups, 0.1, 0)) == count
    assert held_out(groups, 0, 0) == set()


def test_like_prompts_land_on_one_side_and_each_prompt_once(tmp_path: Path) -> None:
    texts = [text for number in range(20) for text in (f"ask {number}", f"Ask  {number}", f"ask {number}")]
    made = split(tmp_path, prompts(*texts), {})
    train, held = ({row["prompt"] for row in rows(tmp_path / name)} for name in ("train.jsonl", "held.jsonl"))
    assert (len(train), len(held)) == (made.training_rows, made.held_out_rows) == (28, 12)
    assert not {text.casefold().replace("  ", " ") for text in train} & {
        text.casefold().replace("  ", " ") for text in held
    }
    assert [row["prompt"] for row in rows(tmp_path / "train.jsonl")] == [
        text for text in dict.fromkeys(texts) if text in train
    ], "in the order of the prompts"
    assert (made.prompt_tokens, made.answer_tokens) == (80, 40)


def test_what_is_no_answer_is_kept_out_and_counted(tmp_path: Path) -> None:
    answers = {
        "empty": {"content": " \n"},
        "none": {"content": None},
        "cut": {"content": "and then", "finish_reason": "length"},
        "declined": {"content": "I\u2019m sorry, but I can\u2019t assist with that."},
        "filtered": {"content": "", "finish_reason": "content_filter"},
        "sorry": {"content": "I'm sorry, but I can't find that order. Please call us."},
        "called": {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
    }
    made = split(tmp_path, prompts("ask", *answers), answers, share=0)
    assert dict(made.verdicts) == {"kept": 3, "empty": 2, "cut": 1, "refusal": 2}
    assert [row["prompt"] for row in rows(tmp_path / "train.jsonl")] == ["ask", "sorry", "called"]
    assert not (tmp_path / "held.jsonl").exists()


def test_nothing_is_overwritten_and_nothing_is_half_written(tmp_path: Path) -> None:
    (tmp_path / "held.jsonl").write_text("mine")
    with pytest.raises(OsoraUsageError, match="exists already"):
        split(tmp_path, prompts("a", "b"), {})
    assert (tmp_path / "held.jsonl").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"held.jsonl", "journal.jsonl", "journal.lock"}
    with pytest.raises(OsoraUsageError, match="no answer to learn from"):
        split(tmp_path, prompts("c"), {"c": {"content": ""}})
