"""Alpaca's rows: an instruction, perhaps with an input, and the output; perhaps after a history of others."""

from typing import Any

from osora_data.formats.row_check import RowCheck
from osora_data.words import kind

_KNOWN = frozenset(("instruction", "input", "output", "system", "history"))


def read_alpaca(check: RowCheck, row: dict[str, Any]) -> dict[str, Any]:
    """A row with `instruction` and `output`, as a chat. Only the output is learned."""
    check.ignore_others(row, "", _KNOWN)
    instruction = check.text(row, "", "instruction", "the instruction")
    output = check.text(row, "", "output", "the text to learn")
    if output == "":
        check.reject("output", "is empty, so there is nothing to learn", "give it text or remove the line", "")
    input_ = check.text(row, "", "input", "the input") if row.get("input") is not None else ""
    system = check.text(row, "", "system", "the system's message") if row.get("system") is not None else ""
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    messages += _history(check, row.get("history"))
    check.note("Alpaca's rows were read as chats: the instruction, a line break and the input are the user's message")
    asked = f"{instruction}\n{input_}" if instruction and input_ else instruction or input_
    return {"messages": [*messages, {"role": "user", "content": asked}, {"role": "assistant", "content": output}]}


def _history(check: RowCheck, history: Any) -> list[dict[str, Any]]:
    if history is None:
        return []
    if not isinstance(history, list):
        action = 'write [["question", "answer"], …]'
        check.reject("history", f"must be a list of questions and answers, not {kind(history)}", action, history)
    messages: list[dict[str, Any]] = []
    for index, turn in enumerate(history):
        if not isinstance(turn, list) or len(turn) != 2 or not all(isinstance(text, str) for text in turn):
            action = 'write ["question", "answer"]'
            check.reject(f"history[{index}]", "must be a list of a question and an answer", action, turn)
        asked, answer = turn
        messages += {"role": "user", "content": asked}, {"role": "assistant", "content": answer, "weight": 0}
    return messages
