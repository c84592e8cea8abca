"""What a chat template makes of tools: tried by rendering, as names of models say little and templates get changed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from osora_core.tools.convention import FORMAT, Roles, for_any_template
from osora_core.tools.format import SLOT, CallFormat, call_id
from osora_core.tools.messages import Messages, Tools, Transcript, for_template, has_tools, plain

_ARGUMENTS = {"qzkey": "qzvalue", "qzcount": 17}
_NAMES = ("qzfirst", "qzsecond")
_SAID, _RESULT, _SYSTEM = "Qzsaid.", "qzresult", "Qzsystem."
_USER = {"role": "user", "content": "Which one?"}
_PLAIN = {"role": "assistant", "content": _SAID}
_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Does {name}it.",
            "parameters": {
                "type": "object",
                "properties": {"qzkey": {"type": "string"}, "qzcount": {"type": "integer"}},
            },
        },
    }
    for name in _NAMES
]


class Render(Protocol):
    """A chat template. It raises whatever its author chose."""

    def __call__(self, messages: Sequence[Mapping[str, Any]], tools: Tools | None, *, generate: bool) -> str: ...


@dataclass(frozen=True)
class Dialect:
    """How a base's conversations have tools: through its template's own way, or through ours.

    `printed`: what its template prints around calls and results; nothing of ours. `after_result`: what it prints
    between a result and what the assistant says next.
    """

    format: CallFormat
    arguments_as_text: bool = False
    roles: Roles | None = None
    printed: str = ""
    after_result: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether the template has no way of its own."""
        return self.roles is not None

    def transcript(self, messages: Messages, tools: Tools | None) -> Transcript:
        """A conversation for the template. Raises UserError for what cannot be shown in it."""
        if not has_tools(messages, tools):
            return plain(messages)
        if self.roles is not None:
            return for_any_template(messages, tools, self.roles)
        return for_template(messages, tools, self.format, arguments_as_text=self.arguments_as_text)


def dialect_of(render: Render) -> Dialect:
    """The template's own way where it shows tools, calls of them and their results; else ours."""
    for as_text in (False, True):
        probe = _Probe(render, as_text)
        try:
            format = probe.format()
            if format is not None and (around := probe.results(format.between)) is not None:
                return Dialect(format, as_text, None, *around)
        except Exception:  # templates raise whatever their author chose
            continue
    return Dialect(_ours(render), roles=_roles(render))


def _ours(render: Render) -> CallFormat:
    """Our format, within the blanks that the template puts around an answer."""
    try:
        preamble, closing = _around(_answer(render, None, _PLAIN))
    except Exception:  # templates raise whatever their author chose
        return FORMAT
    blank = closing[: len(closing) - len(closing.lstrip())] if closing.strip() else ""
    return replace(FORMAT, preamble=preamble, tail=FORMAT.tail + blank)


def _answer(render: Render, tools: Tools | None, message: Mapping[str, Any]) -> str:
    """What the template prints of an answer behind its prompt."""
    asked = render([_USER], tools, generate=True)
    answered = render([_USER, message], tools, generate=False)
    if not answered.startswith(asked):
        raise ValueError("the template renders what comes before an answer differently")
    return answered[len(asked) :]


def _around(answer: str) -> tuple[str, str]:
    before, _, after = answer.partition(_SAID)
    return before, after


class _Probe:
    def __init__(self, render: Render, arguments_as_text: bool) -> None:
        self._render = render
        self._as_text = arguments_as_text

    def format(self) -> CallFormat | None:
        """How the template writes calls. None where it does not, or not so that they can be told."""
        shown = self._render([_USER], _TOOLS, generate=True)
        if not all(name in shown for name in (*_NAMES, f"Does {_NAMES[0]}it.", "qzkey")):
            return None
        preamble, closing = _around(self._answer(_PLAIN))
        closing = closing.lstrip()
        one = _pieces(self._answer(self._calls(1)), 1, closing)
        if one is None:
            return None
        lead, mid, tail, arguments = one[0], one[1], one[2], one[3]
        separators = next((pair for pair in ((", ", ": "), (",", ":")) if _dump(pair) == arguments), None)
        if separators is None:
            return None
        if preamble and not lead.startswith(preamble):
            preamble = ""
        return CallFormat(
            lead.removeprefix(preamble), mid, tail, self._between(one, closing), self._gap(lead.removeprefix(preamble)),
            preamble, separators,
        )  # fmt: skip

    def results(self, between: str | None) -> tuple[str, str] | None:
        """What the template prints around calls and results, and behind a result. None where it shows none."""
        messages = [_USER, self._calls(1), self._result()]
        asked = self._render(messages, _TOOLS, generate=True)
        first = self._render(messages[:1], _TOOLS, generate=True)
        before, _, after = asked.rpartition(_RESULT)
        if not before or not asked.startswith(first):
            return None
        two = "" if between is None else between
        return before[len(first) :] + two + after, after

    def _answer(self, message: Mapping[str, Any]) -> str:
        return _answer(self._render, _TOOLS, message)

    def _calls(self, count: int, content: str = "") -> dict[str, Any]:
        arguments = json.dumps(_ARGUMENTS) if self._as_text else _ARGUMENTS
        calls = [
            {"type": "function", "id": call_id(number), "function": {"name": name, "arguments": arguments}}
            for number, name in enumerate(_NAMES[:count])
        ]
        return {"role": "assistant", "content": content, "tool_calls": calls}

    @staticmethod
    def _result() -> dict[str, Any]:
        return {"role": "tool", "content": _RESULT, "tool_call_id": call_id(0), "name": _NAMES[0]}

    def _between(self, one: Sequence[str], closing: str) -> str | None:
        """What stands between two calls. None where the template shows one only."""
        lead, mid, tail, _ = one
        try:
            two = _pieces(self._answer(self._calls(2)), 2, closing)
        except Exception:  # "this model only supports single tool-calls at once"
            return None
        if two is None or (two[0], two[1], two[2]) != (lead, mid, tail):
            return None
        return two[4]

    def _gap(self, lead: str) -> str | None:
        """What stands between text and a call. None where the template leaves the text out."""
        try:
            said = self._answer(self._calls(1, _SAID))
        except Exception:  # templates raise whatever their author chose
            return None
        _, found, rest = said.partition(_SAID)
        before = _slotted(rest.partition(_NAMES[0])[0])
        return before.removesuffix(lead) if found and before.endswith(lead) else None


def _pieces(text: str, count: int, closing: str) -> list[str] | None:
    """lead, mid, tail and the arguments of an answer that is calls, and what is between the first two."""
    if closing and not text.endswith(closing):
        return None
    text = text.removesuffix(closing) if closing else text
    around: list[str] = []
    position = 0
    for name in _NAMES[:count]:
        begin = text.find(name, position)
        found = None if begin < 0 else _arguments(text, begin + len(name))
        if found is None:
            return None
        around += text[position:begin], text[begin + len(name) : found[0]]
        position = found[1]
        arguments = text[slice(*found)]
    lead, mid, *more = map(_slotted, around)
    if any(name in piece for name in ("qz", *_NAMES) for piece in (lead, mid, *more)) or not _ends_a_name(mid):
        return None
    if more and more[1] != mid:
        return None
    return [lead, mid, _slotted(text[position:]), arguments, *more[:1]]


def _arguments(text: str, begin: int) -> tuple[int, int] | None:
    """Where behind `begin` the arguments are, as JSON."""
    at = text.find("{", begin)
    while at >= 0:
        try:
            value, end = json.JSONDecoder().raw_decode(text, at)
        except ValueError:
            value, end = None, at
        if value == _ARGUMENTS:
            return at, end
        at = text.find("{", at + 1)
    return None


def _ends_a_name(mid: str) -> bool:
    return bool(mid) and not (mid[0].isalnum() or mid[0] in "_-" or mid[0] == SLOT)


def _slotted(text: str) -> str:
    return text.replace(call_id(0), SLOT).replace(call_id(1), SLOT)


def _dump(separators: tuple[str, str]) -> str:
    return json.dumps(_ARGUMENTS, separators=separators)


def _roles(render: Render) -> Roles:
    """What roles a template knows, beside those of a user and an assistant that take turns."""
    return Roles(_shows_system(render), "tool" if _shows_results(render) else "user")


def _shows_system(render: Render) -> bool:
    try:
        return _SYSTEM in render([{"role": "system", "content": _SYSTEM}, _USER], None, generate=True)
    except Exception:  # templates raise whatever their author chose
        return False


def _shows_results(render: Render) -> bool:
    """Whether a message of the role `tool` is shown, and as what neither the user nor the assistant says."""

    def shown(role: str) -> str | None:
        try:
            return render([_USER, _PLAIN, {"role": role, "content": _RESULT}], None, generate=True)
        except Exception:  # templates raise whatever their author chose
            return None

    result = shown("tool")
    return result is not None and _RESULT in result and result not in (shown("user"), shown("assistant"))
