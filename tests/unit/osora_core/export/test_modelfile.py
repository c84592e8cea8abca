"""Chat templates in Ollama's language: they print what the base's own do, or are left out."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from osora_core.export.modelfile import modelfile, turns_of
from tests.support.conventions import CONVENTIONS, convention_of

TINY = Path(__file__).parents[4] / "models" / "osora-tiny"
TOLD = [name for name, convention in CONVENTIONS.items() if convention.template is not None]
# What Ollama does: Go's own templates, over messages with a role and a content.
PROGRAM = """
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"text/template"
)

type Message struct{ Role, Content string }

func main() {
	var cases []struct {
		Template string
		Messages []*Message
	}
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		panic(err)
	}
	for _, c := range cases {
		parsed := template.Must(template.New("").Option("missingkey=zero").Parse(c.Template))
		if err := parsed.Execute(os.Stdout, map[string]any{"Messages": c.Messages}); err != nil {
			panic(err)
		}
		fmt.Print("\\x00")
	}
}
"""


def template_in(text: str) -> str:
    found = re.search(r'^TEMPLATE """(.*?)"""$', text, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def conversations(*, system: bool) -> list[list[dict[str, str]]]:
    """Of each length, with a system message and without."""
    turns = [
        {"role": role, "content": f"{role} says: “it's {n}” <b>&amp;</b>"}
        for n, role in enumerate(["user", "assistant"] * 2)
    ]
    cases = [turns[:1], turns[:3]]
    return cases + ([[{"role": "system", "content": "Be brief."}, *case] for case in cases] if system else [])


def printed(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


@pytest.mark.parametrize("name", TOLD)
def test_what_a_template_prints_is_known(name: str) -> None:
    tokenizer = convention_of(name)
    turns = turns_of(tokenizer)
    assert turns is not None
    assert (turns.system is not None) == CONVENTIONS[name].system
    for messages in conversations(system=CONVENTIONS[name].system):
        assert turns.render(messages) == printed(tokenizer, messages)


@pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed")
def test_ollamas_template_prints_what_the_base_own_does(tmp_path: Path) -> None:
    cases, expected = [], []
    for name in TOLD:
        tokenizer = convention_of(name)
        text = template_in(modelfile(tokenizer, "a.gguf", ["</s>"]))
        for messages in conversations(system=CONVENTIONS[name].system):
            cases.append({"Template": text, "Messages": messages})
            begin = str(tokenizer.bos_token) if CONVENTIONS[name].begin else ""  # Ollama adds it by itself
            expected.append(printed(tokenizer, messages).removeprefix(begin))
    (tmp_path / "main.go").write_text(PROGRAM)
    command = ["go", "run", "main.go"]
    done = subprocess.run(command, cwd=tmp_path, input=json.dumps(cases), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\0")[:-1] == expected


def test_a_modelfile_names_file_template_ends_and_how_answers_are_drawn() -> None:
    text = modelfile(AutoTokenizer.from_pretrained(TINY), "a.gguf", ["<|im_end|>", '<"odd">'])
    assert text.startswith("FROM ./a.gguf\n")
    assert template_in(text).endswith(
        '{{ if and $last (ne $m.Role "assistant") }}<|im_start|>assistant\n{{ end }}{{ end }}'
    )
    assert 'PARAMETER stop "<|im_end|>"\n' in text
    assert 'PARAMETER stop "<\\"odd\\">"\n' in text
    assert text.endswith("PARAMETER temperature 0\nPARAMETER repeat_penalty 1\n")


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ loop.index }}: {{ m.content }}\n{% endfor %}> ",  # counts
        "{% for m in messages %}<{{ m.role }}>{{ m.content | upper }}{% endfor %}<assistant>",
        "{% for m in messages %}{{ '{{' }}{{ m.role }}{{ m.content }}\n{% endfor %}{{ '{{' }}assistant",
        "{% for m in messages %}{% if not loop.last %}{{ m.content }}{% endif %}{% endfor %}",
        "{{ raise_exception('no') }}",
    ],
)
def test_a_template_that_does_more_is_left_out_with_a_word(template: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    tokenizer.chat_template = template
    text = modelfile(tokenizer, "a.gguf", ["<|im_end|>"])
    assert "\nTEMPLATE" not in text
    assert "# There is no TEMPLATE here" in text
    assert "PARAMETER stop" in text


def test_a_base_without_a_chat_template_gets_none() -> None:
    assert "TEMPLATE" not in modelfile(convention_of("GPT-2"), "a.gguf", [])


def test_a_template_that_refuses_system_messages_says_so() -> None:
    assert "# This base's chat template knows no system message" in modelfile(convention_of("Gemma"), "a.gguf", [])
