"""How a model is called: ready to be copied, with its own name and the address of this installation."""

import json
import shlex
from dataclasses import dataclass
from typing import Any

_QUESTION = "Hello!"


@dataclass(frozen=True)
class Snippet:
    """A piece of code. The key is in none: each takes it from OSORA_API_KEY."""

    name: str
    language: str
    text: str


def snippets(url: str, model: str, *, strength: float = 1.0, is_chat: bool = True) -> tuple[Snippet, ...]:
    """For curl, our SDK and OpenAI's client.

    `model`: an adapter, a checkpoint or an alias. `is_chat`: whether its base has a chat template; else it is given a
    text to continue.
    """
    return (
        Snippet("curl", "bash", _curl(url, model, strength, is_chat)),
        Snippet("Python", "python", _python(url, model, strength, is_chat)),
        Snippet("openai", "python", _openai(url, model, strength, is_chat)),
    )


def _asked() -> list[dict[str, str]]:
    return [{"role": "user", "content": _QUESTION}]


def _curl(url: str, model: str, strength: float, is_chat: bool) -> str:
    body: dict[str, Any] = {"adapter_id": model}
    body |= {"messages": _asked()} if is_chat else {"prompt": _QUESTION}
    if strength != 1:
        body["strength"] = strength
    return (
        f"curl {shlex.quote(f'{url}/generate')} \\\n"
        '  -H "Authorization: Bearer $OSORA_API_KEY" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d {shlex.quote(_lines(body))}\n"
    )


def _python(url: str, model: str, strength: float, is_chat: bool) -> str:
    asked = _literal(_asked() if is_chat else _QUESTION)
    scaled = f"    strength={strength!r},\n" if strength != 1 else ""
    return (
        "from osora import Osora\n\n"
        f"osora = Osora({_literal(url)})  # the key: OSORA_API_KEY\n"
        f"answer = osora.generate(\n"
        f"    {asked},\n"
        f"    adapter={_literal(model)},\n"
        f"{scaled}"
        ")\n"
        'print(answer["text"])\n'
    )


def _openai(url: str, model: str, strength: float, is_chat: bool) -> str:
    what = f"messages={_literal(_asked())}" if is_chat else f"prompt={_literal(_QUESTION)}"
    door, text = ("chat.completions", "message.content") if is_chat else ("completions", "text")
    scaled = f'    extra_body={{"osora": {{"strength": {strength!r}}}}},\n' if strength != 1 else ""
    return (
        "import os\n\n"
        "from openai import OpenAI\n\n"
        "client = OpenAI(\n"
        f"    base_url={_literal(f'{url}/v1')},\n"
        '    api_key=os.environ["OSORA_API_KEY"],\n'
        ")\n"
        f"answer = client.{door}.create(\n"
        f"    model={_literal(model)},\n"
        f"    {what},\n"
        f"{scaled}"
        ")\n"
        f"print(answer.choices[0].{text})\n"
    )


def _lines(body: dict[str, Any]) -> str:
    """A field on each line: what is longer than a screen is wide is hard to read, and to change."""
    fields = ",\n".join(f"    {_literal(name)}: {_literal(value)}" for name, value in body.items())
    return f"{{\n{fields}\n  }}"


def _literal(value: Any) -> str:
    """As Python writes it, which for texts, lists and objects is how JSON does."""
    return json.dumps(value, ensure_ascii=False)
