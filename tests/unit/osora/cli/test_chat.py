import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from osora.cli import app
from tests.support import terminal

from ..conftest import Answer, FakeService, Request, sse

COMMAND = [sys.executable, "-P", "-m", "osora", "chat"]


def chat(*words: str, typed: str = "") -> Result:
    return CliRunner().invoke(app, ["chat", *words], input=typed)


def spoken(*pieces: str, reason: str = "stop") -> Answer:
    whole = {"text": "".join(pieces), "finish_reason": reason, "usage": {"completion_tokens": len(pieces)}}
    return Answer(events=[*(sse("token", {"text": piece}) for piece in pieces), sse("done", whole)])


def asked(service: FakeService) -> list[dict[str, Any]]:
    return [request.json for request in service.requests if request.path == "/generate"]


@pytest.fixture
def partner(service: FakeService) -> FakeService:
    service.on("GET", "/bases", Answer(body={"data": [{"name": "osora-tiny"}]}))
    for name in ("adp-1", "adp-2"):
        service.on("GET", f"/adapters/{name}", Answer(body={"id": name, "job_id": "ftjob-1"}))
    service.on("GET", "/aliases/triage", Answer(body={"name": "triage", "targets": {"adp-1": 1, "adp-2": 1}}))
    service.routes["POST", "/generate"] = lambda _: spoken("He", "llo")
    return service


def test_it_remembers_what_was_said(partner: FakeService) -> None:
    result = chat("adp-1", "--system", "Be brief", "--temperature", "0", "--strength", "0.5", typed="Hi\n\nAgain\n")
    assert (result.exit_code, result.stdout) == (0, "Hello\nHello\n")
    first, second = asked(partner)
    system = {"role": "system", "content": "Be brief"}
    turn = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert first["messages"] == [system, turn[0]]
    assert second["messages"] == [system, *turn, {"role": "user", "content": "Again"}]
    assert (second["adapter_id"], second["strength"], second["temperature"]) == ("adp-1", 0.5, 0.0)
    assert "base" not in second


def test_the_bare_base(partner: FakeService) -> None:
    assert chat(typed="Hi\n").exit_code == 0
    (body,) = asked(partner)
    assert (body["base"], "adapter_id" in body) == ("osora-tiny", False)
    assert chat("adp-1", "--base", "osora-tiny").exit_code == 2
    assert chat("--base", "osora-tinny").exit_code == 2


def test_commands_change_what_is_asked_next(partner: FakeService) -> None:
    lines = ["Hi", "/adapter adp-2", "/strength 0.25", "/max-tokens 7", "/system Be kind", "Again"]
    lines += ["/reset", "/system", "/adapter", "Anew", "/quit", "never asked"]
    result = chat("adp-1", typed="\n".join(lines) + "\n")
    assert result.exit_code == 0
    _, again, anew = asked(partner)
    assert (again["adapter_id"], again["strength"], again["max_tokens"]) == ("adp-2", 0.25, 7)
    assert [message["content"] for message in again["messages"]] == ["Be kind", "Hi", "Hello", "Again"]
    assert [message["content"] for message in anew["messages"]] == ["Anew"]
    assert "adapter_id" not in anew
    assert "strength" not in anew


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/rest", "Did you mean /reset?"),
        ("/whatever", "/help lists what there is"),
        ("/strength much", "/strength 0.5"),
        ("/max-tokens none", "/max-tokens 200"),
        ("/save", "Nothing was said yet"),
        ("/help", "/save FILE"),
        ("/adapter adp-9", "Error: No /adapters/adp-9"),
    ],
)
def test_a_command_that_cannot_be_done_says_why_and_the_chat_goes_on(
    partner: FakeService, line: str, said: str
) -> None:
    result = chat("adp-1", typed=f"{line}\nHi\n")
    assert result.exit_code == 0
    assert said in result.output
    assert [body["adapter_id"] for body in asked(partner)] == ["adp-1"]


def test_a_line_that_begins_with_a_blank_is_no_command(partner: FakeService) -> None:
    assert chat("adp-1", typed=" /quit is a word\n").exit_code == 0
    assert asked(partner)[0]["messages"][-1]["content"] == " /quit is a word"


def test_a_conversation_is_saved_as_training_data(partner: FakeService, tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    path.write_text('{"mine": true}')  # without an end of its line
    result = chat("adp-1", "--system", "Be brief", typed=f"Hé\n/save {path}\nAgain\n/save {path}\n")
    assert f"{path}: row 3" in result.stdout
    mine, first, second = map(json.loads, path.read_text().splitlines())
    assert mine == {"mine": True}
    assert [message["role"] for message in first["messages"]] == ["system", "user", "assistant"]
    assert first["messages"][1]["content"] == "Hé"
    assert len(second["messages"]) == 5
    assert "Name another file" in chat("adp-1", typed=f"Hi\n/save {tmp_path}\n").stdout


def test_an_answer_that_was_cut_is_called_so(partner: FakeService) -> None:
    partner.on("POST", "/generate", spoken("a", "b", reason="length"))
    result = chat("adp-1", typed="Hi\n")
    assert (result.stdout, "cut after 2 tokens" in result.stderr) == ("ab\n", True)
    (line,) = chat("adp-1", "--json", typed="Hi\n").stdout.splitlines()
    assert json.loads(line) == {"role": "assistant", "content": "ab", "finish_reason": "length"}


def test_an_alias_of_several_can_be_talked_to_and_a_name_of_nobody_not(partner: FakeService) -> None:
    assert chat("triage", typed="Hi\n").exit_code == 0
    assert asked(partner)[0]["adapter_id"] == "triage"
    assert chat("adp-9", typed="Hi\n").exit_code == 5


def test_a_pipe_ends_with_the_first_error(partner: FakeService) -> None:
    partner.on("POST", "/generate", Answer(400, {"error": {"message": "No."}}))
    result = chat("adp-1", typed="Hi\nAgain\n")
    assert (result.exit_code, result.stderr, len(asked(partner))) == (1, "Error: No.\n", 1)


def test_in_a_terminal_ctrl_c_stops_the_answer_and_not_the_chat(partner: FakeService) -> None:
    over = threading.Event()

    def endless() -> Iterator[str]:
        yield sse("token", {"text": "Once upon"})
        over.wait(60)

    def answer(request: Request) -> Answer:
        if len(request.json["messages"]) > 1:
            return spoken("The", " end")
        return Answer(events=endless())

    partner.routes["POST", "/generate"] = answer
    with terminal.running([*COMMAND, "adp-1"], os.environ) as screen:
        screen.wait_for("\n>")
        screen.type("Tell me\n")
        screen.wait_for("Once upon")
        screen.type("\x03")
        screen.wait_for("(stopped)")
        screen.wait_for_prompt()
        screen.type("And then?\n")
        screen.wait_for("The end\n>")
        screen.wait_for_prompt()
        screen.type("half a")
        screen.wait_for("> half a")
        screen.interrupt("/quit ends the chat")
        screen.end_input()
        assert screen.finish() == 0
        over.set()
    assert [message["content"] for message in asked(partner)[-1]["messages"]] == ["Tell me", "Once upon", "And then?"]


def test_in_a_terminal_an_error_is_told_and_forgotten(partner: FakeService) -> None:
    partner.on("POST", "/generate", Answer(400, {"error": {"message": "max_tokens is 9: no"}}), spoken("ok"))
    with terminal.running([*COMMAND, "adp-1"], os.environ) as screen:
        screen.wait_for("\n>")
        screen.type("Hi\n")
        screen.wait_for("Error: --max-tokens is 9: no.")
        screen.wait_for_prompt()
        screen.type("Again\n")
        screen.wait_for("ok\n>")
        screen.type("/quit\n")
        assert screen.finish() == 0
    assert [message["content"] for message in asked(partner)[-1]["messages"]] == ["Again"]
