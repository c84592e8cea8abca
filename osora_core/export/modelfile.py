"""What Ollama is told of a GGUF file: where a text ends, how an answer is drawn, and the chat template in its language.

Ollama has templates in Go's language. Ours is put together from what the base's own template prints around messages; it
is written only if it prints the same as that for whole conversations.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from osora_core.export.gguf_vocabulary import adds_around

_Messages = Sequence[Mapping[str, str]]
_Render = Callable[[_Messages, bool], str]
_SYSTEM, _QUESTION, _ANSWER, _NEXT = "Speak plainly.", "Which one?", "This one.", "And then?"
_NO_TEMPLATE = """\
# There is no TEMPLATE here, as what this base's chat template prints cannot be said in Ollama's language message by
# message. Ollama may know one for the template in the file: see `ollama show --template`.
"""
_NO_SYSTEM = "# This base's chat template knows no system message: one that is sent is left out.\n"


@dataclass(frozen=True)
class Turns:
    """What a chat template prints: before and after the content of each role's message, at the beginning where no
    system message is, and where the assistant is to speak.

    folded: a system message opens the first user's turn, which then has no beginning of its own; without `system`,
    there is none. begin: what Ollama itself puts before every text, so that it must not be printed there.
    """

    user: tuple[str, str]
    assistant: tuple[str, str]
    system: tuple[str, str] | None
    folded: bool
    opening: str
    speak: str
    begin: str

    def render(self, messages: _Messages) -> str:
        """What the chat template prints before an answer, if this is what it does."""
        text = "" if messages[0]["role"] == "system" else self.opening
        for index, message in enumerate(messages):
            roles = {"user": self.user, "assistant": self.assistant, "system": self.system or ("", "")}
            before, after = roles[message["role"]]
            if self.folded and index == 1 and messages[0]["role"] == "system":
                before = ""
            text += before + message["content"] + after
        return text + self.speak

    def go(self) -> str:
        """The same in Go's language, as Ollama reads it. An answer that comes last is to be continued."""
        opening, user, assistant = self.opening.removeprefix(self.begin), self._inner(self.user[0]), self.assistant
        if self.folded:
            user = f'{{{{ if not (and (eq $i 1) (eq (index $.Messages 0).Role "system")) }}}}{user}{{{{ end }}}}'
        parts = [
            f'{{{{ if and (eq $i 0) (ne $m.Role "system") }}}}{opening}{{{{ end }}}}' if opening else "",
            _of_role("system", self._inner(self.system[0]), self.system[1]) if self.system else "",
            _of_role("user", user, self.user[1]),
            _of_role("assistant", assistant[0], f"{{{{ if not $last }}}}{assistant[1]}{{{{ end }}}}"),
            f'{{{{ if and $last (ne $m.Role "assistant") }}}}{self.speak}{{{{ end }}}}' if self.speak else "",
        ]
        loop = "{{ range $i, $m := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        return loop + "".join(parts) + "{{ end }}"

    def _inner(self, text: str) -> str:
        """What comes before a message, without what Ollama puts before the first."""
        if not self.begin or not text.startswith(self.begin):
            return text
        return f"{{{{ if $i }}}}{self.begin}{{{{ end }}}}{text.removeprefix(self.begin)}"


def _of_role(role: str, before: str, after: str) -> str:
    return f'{{{{ if eq $m.Role "{role}" }}}}{before}{{{{ $m.Content }}}}{after}{{{{ end }}}}'


def modelfile(tokenizer: PreTrainedTokenizerBase, file: str, ends: Iterable[str]) -> str:
    """Ollama's Modelfile for the GGUF file of a base with this tokenizer; `ends` are the tokens that end an answer."""
    lines = [f"FROM ./{file}\n"]
    if tokenizer.chat_template is not None:
        turns = turns_of(tokenizer)
        if turns is None:
            lines.append(_NO_TEMPLATE)
        else:
            lines += [] if turns.system else [_NO_SYSTEM]
            lines.append(f'TEMPLATE """{turns.go()}"""\n')
    lines += [f"PARAMETER stop {_quoted(end)}\n" for end in sorted(ends) if "\n" not in end]
    lines.append("# As the service answers where a request says nothing else: the likeliest token, and no penalty.\n")
    lines.append("PARAMETER temperature 0\nPARAMETER repeat_penalty 1\n")
    return "".join(lines)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'


def turns_of(tokenizer: PreTrainedTokenizerBase) -> Turns | None:
    """What a chat template prints around messages; None if that is not all that it does."""

    def render(messages: _Messages, generate: bool) -> str:
        known = [dict(message) for message in messages]
        return str(tokenizer.apply_chat_template(known, tokenize=False, add_generation_prompt=generate))

    try:
        begin = tokenizer.bos_token if adds_around(tokenizer)[0] else ""
        turns = _learned(render, begin, tokenizer.eos_token or "")
        return turns if _is_true(turns, render) else None
    except Exception:  # templates raise whatever their author chose
        return None


def _learned(render: _Render, begin: str, end: str) -> Turns:
    """From a conversation of three turns and one with a system message. Some templates print `end` where nobody is to
    speak. Raises ValueError."""
    asked = [_message("user", _QUESTION)]
    answered = [*asked, _message("assistant", _ANSWER)]
    whole = [*answered, _message("user", _NEXT)]
    head, between, after, last = _parted(render(whole, True), _QUESTION, _ANSWER, _NEXT)
    user_end = _start(last, _parted(render(whole, False), _NEXT)[-1], end)
    answer_end = _start(after, _parted(render(answered, False), _ANSWER)[-1], end)
    user_begin = after.removeprefix(answer_end)
    system, folded = _system(render, asked, user_begin)
    return Turns(
        user=(user_begin, user_end),
        assistant=(_without_start(between, user_end), answer_end),
        system=system,
        folded=folded,
        opening=_without_end(head, user_begin),
        speak=last.removeprefix(user_end),
        begin=begin,
    )


def _start(text: str, found: str, end: str) -> str:
    """What of `found`, which may have `end` behind it, `text` begins with."""
    start = found if text.startswith(found) else found.removesuffix(end)
    _without_start(text, start)
    return start


def _system(render: _Render, asked: _Messages, user_begin: str) -> tuple[tuple[str, str] | None, bool]:
    try:
        text = render([_message("system", _SYSTEM), *asked], False)
    except Exception:  # it refuses system messages
        return None, False
    before, after, _ = _parted(text, _SYSTEM, _QUESTION)
    if after.endswith(user_begin) and user_begin:
        return (before, after.removesuffix(user_begin)), False
    return (before, after), True


def _is_true(turns: Turns, render: _Render) -> bool:
    """Whether it prints what the chat template does, and nothing in it would be read as Go's language."""
    roles = ("user", "assistant") * 3
    conversation = [_message(role, f"{role} {index} says a word") for index, role in enumerate(roles)]
    started = [conversation] + ([[_message("system", "Be kind, and brief."), *conversation]] if turns.system else [])
    cases = [messages[:end] for messages in started for end in range(1, 7) if messages[end - 1]["role"] == "user"]
    printed = [*turns.user, *turns.assistant, *(turns.system or ()), turns.opening, turns.speak]
    return not any("{{" in text or '"' in text for text in printed) and all(
        turns.render(messages) == render(messages, True) for messages in cases
    )


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _parted(text: str, *contents: str) -> list[str]:
    parts = []
    for content in contents:
        part, found, text = text.partition(content)
        if not found:
            raise ValueError(f"the template does not print {content!r} as it is")
        parts.append(part)
    return [*parts, text]


def _without_start(text: str, start: str) -> str:
    if not text.startswith(start):
        raise ValueError(f"{text!r} does not begin with {start!r}")
    return text.removeprefix(start)


def _without_end(text: str, end: str) -> str:
    if not text.endswith(end):
        raise ValueError(f"{text!r} does not end with {end!r}")
    return text.removesuffix(end)
