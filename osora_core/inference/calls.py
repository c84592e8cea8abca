"""Calls as they are generated: the grammar of an answer that may call, and what stands for control tokens in it."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from osora_core.inference.formats import with_known_formats
from osora_core.inference.grammar import GrammarCompiler
from osora_core.tools.arguments import closed
from osora_core.tools.format import ID, SLOT, CallFormat
from osora_core.tools.messages import Tools, described

# Characters that Unicode keeps for a program's own use: no text has them.
_STAND_INS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
# As many as a message may have.
_MOST_CALLS = 128
_TEXT = "/(?s:.*)/"

Choice = Literal["auto", "none", "required"]
"""Whether an answer calls."""


@dataclass(frozen=True)
class ToolUse:
    """How a base calls. In `format`, control tokens are stand-ins; `shown` has the stand-in of each by its id.

    `spoken`: tokens that a grammar has to name, and that an answer may have anywhere, such as `<think>`.
    """

    format: CallFormat
    shown: Mapping[int, str]
    contents: Mapping[str, str]
    controls: Mapping[str, int]
    spoken: Sequence[int]

    @classmethod
    def of(cls, format: CallFormat, grammars: GrammarCompiler) -> "ToolUse":
        """What a base's format comes to with its tokenizer."""
        controls = grammars.controls
        shown: dict[int, str] = {}
        contents: dict[str, str] = {}
        for content, token in sorted(controls.items(), key=lambda control: len(control[0]), reverse=True):
            if any(content in piece for piece in _pieces(format)) and len(shown) < len(_STAND_INS):
                shown[token] = stand_in = _STAND_INS[len(shown)]
                contents[stand_in] = content
                format = replace(
                    format,
                    **{
                        name: piece.replace(content, stand_in)
                        for name in ("lead", "mid", "tail", "between")
                        if (piece := getattr(format, name)) is not None
                    },
                )
        return cls(format, shown, contents, controls, sorted(grammars.spoken - shown.keys()))

    @property
    def marker(self) -> str | None:
        """What shows, wherever it is, that a call begins; see `CallFormat.marker`."""
        return self.format.marker(list(self.contents))

    def text(self, piece: str) -> str:
        """A piece of an answer as it reads."""
        for stand_in, content in self.contents.items():
            piece = piece.replace(stand_in, content)
        return piece

    def grammar(self, tools: Tools, choice: Choice, *, parallel: bool, schema: Mapping[str, Any] | None = None) -> str:
        """A Lark grammar of the answers that there may be. `schema`: what an answer that does not call keeps to."""
        if choice == "none":
            return _lark("start: " + self._no_calls())
        functions = [tool["function"] for tool in described(tools)]
        several = parallel and self.format.between is not None
        rules = [
            f"args_{index}: %json {self._arguments(function['parameters'])} // the parameters of {function['name']}"
            for index, function in enumerate(functions)
        ]
        names = [function["name"] for function in functions]
        tail = self._literal(self.format.tail)
        more = f"more{{0,{_MOST_CALLS - 1}}}" if several else ""
        if several:
            rules.append("more: " + self._any(self.format.between or "", names))
        marker = self.marker
        if choice == "auto" and schema is None and marker is not None and self.format.gap is not None:
            # Text may come first, and what follows the marker is a call.
            lead = self.format.lead.lstrip().removeprefix(marker)
            rules.append(f"opened{'' if marker in self.contents else '[lazy]'}: TEXT {self._literal(marker)}")
            rules.append(f"calls: {self._aside('TEXT')} opened first {more} {tail}")
            return _lark(f"start: {self._said('TEXT')} | calls", *rules, "first: " + self._any(lead, names))
        preamble = f"({self._literal(self.format.preamble)})?" if self.format.preamble else ""
        rules.append(f"calls: {preamble} first {more} {tail}")
        rules.append("first: " + self._any(self.format.lead, names))
        if choice == "auto":
            text = self._no_calls() if schema is None else f"%json {_json(schema, whitespace_pattern=' ?')}"
            return _lark("start: body | calls", f"body: {text} // the answer's own schema", *rules)
        return _lark("start: calls", *rules)

    def _no_calls(self) -> str:
        """Text that does not call."""
        marker = self.marker
        if marker in self.contents:
            return self._said("TEXT")
        preamble = f"{_quoted(self.format.preamble)}? " if self.format.preamble else ""
        call = preamble + _quoted(self.format.lead) if marker is None else f"{_TEXT} {_quoted(marker)}"
        return f"{self._said('PLAIN')}\nPLAIN: {_TEXT} & ~({call} {_TEXT})"

    def _said(self, text: str) -> str:
        """What an answer says, in pieces of `text`."""
        return f"{self._aside(text)} {text}"

    def _aside(self, text: str) -> str:
        """What an answer says up to a token that is no text for a grammar."""
        return f"({text} <[{','.join(map(str, self.spoken))}]>)*" if self.spoken else ""

    def _any(self, before: str, names: Sequence[str]) -> str:
        """A call of any of the functions."""
        return " | ".join(
            f"{self._literal(before + name + self.format.mid)} args_{index}" for index, name in enumerate(names)
        )

    def _arguments(self, parameters: Mapping[str, Any]) -> str:
        item, key = self.format.separators
        return _json(closed(parameters), whitespace_flexible=False, item_separator=item, key_separator=key)

    def _literal(self, text: str) -> str:
        """A piece of text in Lark, its control tokens by their ids."""
        ids = {SLOT: "ID"} | {stand_in: f"<[{token}]>" for token, stand_in in self.shown.items()}
        ids |= {content: f"<[{token}]>" for content, token in self.controls.items()}
        pattern = "|".join(map(re.escape, sorted(ids, key=len, reverse=True)))
        return " ".join(ids.get(part) or _quoted(part) for part in re.split(f"({pattern})", text) if part)


def _pieces(format: CallFormat) -> list[str]:
    return [format.lead, format.mid, format.tail, format.between or ""]


def _lark(*rules: str) -> str:
    return "\n".join(["%llguidance {}", *rules, f"TEXT: {_TEXT}", f"ID: /{ID}/"])


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _json(schema: Mapping[str, Any], **options: Any) -> str:
    return json.dumps({**with_known_formats(schema), "x-guidance": options}, ensure_ascii=False)
