"""Preferences as TRL writes them: `chosen` and `rejected`, with a `prompt` or with the conversation inside of both."""

from typing import Any

from osora_data.formats.examples import PAIR
from osora_data.formats.messages import read_messages
from osora_data.formats.openai import preference_of, read_answer
from osora_data.formats.row_check import RowCheck
from osora_data.formats.tools import read_tools
from osora_data.words import kind

_KNOWN = frozenset(("prompt", "chosen", "rejected", "system", "tools", "instruction", "input"))


def read_pair(check: RowCheck, row: dict[str, Any]) -> dict[str, Any]:
    """A row with `chosen` and `rejected`."""
    check.ignore_others(row, "", _KNOWN)
    for key in ("chosen", "rejected"):
        if key not in row:
            check.text(row, "", key, "the preferred answer" if key == "chosen" else "the other answer")
    inside, chosen, rejected = _divided(check, row)
    question = _question(check, row, inside)
    of_tools, names = read_tools(check, row, "")
    asked = read_messages(check, question, "prompt" if "prompt" in row else "chosen", PAIR)
    answers = read_answer(check, chosen, "chosen"), read_answer(check, rejected, "rejected")
    check.note("`chosen` and `rejected` were read as `preferred_output` and `non_preferred_output`")
    return preference_of(check, asked, *answers, of_tools, names, ("prompt", "chosen", "rejected"))


def _divided(check: RowCheck, row: dict[str, Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """The messages that both conversations begin with, and what each goes on with."""
    chosen, rejected = (_as_messages(check, row[key], key) for key in ("chosen", "rejected"))
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    for key, conversation in (("chosen", chosen), ("rejected", rejected)):
        if len(conversation) != shared + 1:
            problem = f"goes on for {len(conversation) - shared} messages where the other answer does otherwise"
            check.reject(key, problem, "let both share all but their last message, the answer", conversation)
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _as_messages(check: RowCheck, answer: Any, key: str) -> list[Any]:
    if isinstance(answer, str):
        return [{"role": "assistant", "content": answer}]
    if isinstance(answer, dict):
        return [answer]
    if not isinstance(answer, list) or not answer:
        check.reject(key, f"must be a string or a list of messages, not {kind(answer)}", f"write {PAIR}", answer)
    return answer


def _question(check: RowCheck, row: dict[str, Any], inside: list[Any]) -> list[Any]:
    prompt = row.get("prompt")
    if prompt is None and "instruction" in row:
        parts = [check.text(row, "", key, "the text to answer") for key in ("instruction", "input") if row.get(key)]
        prompt = "\n".join(parts)
    system = check.text(row, "", "system", "the system's message") if row.get("system") else ""
    before = [{"role": "system", "content": system}] if system else []
    if prompt is None:
        if not inside:
            check.text(row, "", "prompt", "the text to answer")
        return [*before, *inside]
    if isinstance(prompt, list):
        # Some write the question in all three.
        return [*before, *prompt, *(inside[len(prompt) :] if inside[: len(prompt)] == prompt else inside)]
    if not isinstance(prompt, str):
        check.reject("prompt", f"must be a string or a list of messages, not {kind(prompt)}", f"write {PAIR}", prompt)
    if inside:
        if not any(isinstance(message, dict) and message.get("content") == prompt for message in inside):
            check.reject(
                "prompt", "is not among the messages that both answers begin with", "remove one of the two", prompt
            )
        return [*before, *inside]
    return [*before, {"role": "user", "content": prompt}]
