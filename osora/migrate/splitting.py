"""Recorded answers as a training file and a held-out file."""

import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from osora.errors import OsoraUsageError
from osora.migrate.journal import Journal
from osora.migrate.prompts import Prompt
from osora.migrate.recording import Verdict, verdict


@dataclass
class Split:
    """What came of a recording: rows in either file, answers by verdict, and tokens as the API counted them."""

    training_rows: int = 0
    held_out_rows: int = 0
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    prompt_tokens: int = 0
    answer_tokens: int = 0


def held_out(groups: Iterable[str], share: float, seed: int) -> set[str]:
    """The groups to hold out, of one for each row: whole ones, until they are `share` of the rows.

    Which come first depends on the seed and on themselves, not on their order. With rows in two groups or more, neither
    side is empty, unless `share` is 0.
    """
    rows = Counter(groups)
    wanted = round(share * rows.total()) if share else 0
    order = sorted(rows, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())
    chosen: set[str] = set()
    taken = 0
    for group in order[:-1]:  # one at least is learned from
        if share == 0 or (chosen and taken + rows[group] > wanted):
            break
        chosen.add(group)
        taken += rows[group]
    return chosen


def write_split(
    prompts: Iterable[Prompt], journal: Journal, share: float, seed: int, training: Path, held: Path
) -> Split:
    """Writes both files, whole or not at all, in the order of the prompts; each prompt once.

    `prompts` is read once; only keys are kept. Raises OsoraUsageError where a file exists, or nothing can be learned.
    """
    split = Split()
    with tempfile.TemporaryDirectory(dir=training.parent, prefix=".split-") as folder:
        rows = Path(folder, "rows")
        groups = _write_rows(prompts, journal, rows, split)
        if not groups:
            raise OsoraUsageError("There is no answer to learn from", "see what the journal says the model answered")
        chosen = held_out(groups, share, seed)
        drafts = Path(folder, "training"), Path(folder, "held-out")
        with rows.open("rb") as source, drafts[0].open("wb") as first, drafts[1].open("wb") as second:
            for line, group in zip(source, groups, strict=True):
                (second if group in chosen else first).write(line)
            for file in (first, second):
                file.flush()
                os.fsync(file.fileno())
        split.held_out_rows = sum(group in chosen for group in groups)
        split.training_rows = len(groups) - split.held_out_rows
        refuse_existing(training, held)
        if split.held_out_rows:
            drafts[1].rename(held)
        drafts[0].rename(training)
    return split


def refuse_existing(*paths: Path) -> None:
    """Raises OsoraUsageError for the first of these that is there already."""
    for path in paths:
        if path.exists():
            raise OsoraUsageError(f"{path} exists already", "name another folder with --output, or move it away")


def _write_rows(prompts: Iterable[Prompt], journal: Journal, path: Path, split: Split) -> list[str]:
    """Writes the rows to learn from; the group of each, in their order."""
    groups: list[str] = []
    seen: set[str] = set()
    with path.open("wb") as out:
        for prompt in prompts:
            key = prompt.key
            if key in seen or key not in journal:
                continue
            seen.add(key)
            entry = journal[key]
            _count(split, entry)
            if verdict(entry) == "kept":
                row = prompt.row(entry["message"])
                out.write(json.dumps(row, ensure_ascii=False).encode(errors="backslashreplace") + b"\n")
                groups.append(prompt.group)
    return groups


def _count(split: Split, entry: dict[str, Any]) -> None:
    split.verdicts[verdict(entry)] += 1
    usage = entry.get("usage") or {}
    split.prompt_tokens += usage.get("prompt_tokens") or 0
    split.answer_tokens += usage.get("completion_tokens") or 0
