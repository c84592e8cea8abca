import threading
from pathlib import Path
from typing import Any

import pytest

from osora.errors import OpenAIError
from osora.migrate.journal import Journal
from osora.migrate.openai_api import OpenAIClient
from osora.migrate.prompts import Prompt
from osora.migrate.recording import Settings, fitting, record, unanswered
from tests.support.fake_openai import Failure, FakeOpenAI, say

SETTINGS = Settings("ft:gpt-4o-mini:acme::1", 0.0, 16, 4)


def chats(count: int) -> list[Prompt]:
    return [Prompt(line, [{"role": "user", "content": f"ask {line}"}], None, None, {}) for line in range(1, count + 1)]


def answered(there: FakeOpenAI) -> list[str]:
    return [one.body["messages"][-1]["content"] for one in there.sent("/chat")]


def test_what_is_under_way_when_it_breaks_off_is_kept(there: FakeOpenAI, client: OpenAIClient, tmp_path: Path) -> None:
    all_asked = threading.Barrier(4)

    def choose(body: Any) -> dict[str, Any]:
        if body["messages"][-1]["content"] == "ask 5":
            return say("late")
        all_asked.wait(60)
        return say("ok")

    there.choose = choose
    there.failures = []
    with Journal(tmp_path / "journal.jsonl", {}) as journal:

        def prompts() -> Any:
            yield from chats(4)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            record(client, SETTINGS, prompts(), journal)
        assert all(prompt.key in journal for prompt in chats(4)), "paid for, and not lost"
    assert there.most_at_once == 4


def test_a_refused_prompt_is_named_and_the_others_go_on(
    there: FakeOpenAI, client: OpenAIClient, tmp_path: Path
) -> None:
    there.choose = lambda body: say("ok")
    there.failures = [Failure("/chat", 400, times=2, message="too long")]
    with Journal(tmp_path / "journal.jsonl", {}) as journal:
        one_at_a_time = Settings(SETTINGS.model, 0.0, None, 1)
        assert record(client, one_at_a_time, chats(4), journal) == {1: "too long", 2: "too long"}
        assert len(list(unanswered(chats(4), journal))) == 2


@pytest.mark.parametrize(("status", "requests"), [(400, 10), (403, 1), (404, 1)])
def test_what_would_refuse_every_prompt_ends_it(
    there: FakeOpenAI, client: OpenAIClient, tmp_path: Path, status: int, requests: int
) -> None:
    there.failures = [Failure("/chat", status, times=999)]
    settings = Settings(SETTINGS.model, 0.0, None, 1)
    with Journal(tmp_path / "journal.jsonl", {}) as journal, pytest.raises(OpenAIError):
        record(client, settings, chats(50), journal)
    assert requests <= len(there.asked) <= requests + 1


def test_a_text_is_a_users_turn_or_goes_on_as_the_model_wants_it(
    there: FakeOpenAI, client: OpenAIClient, tmp_path: Path
) -> None:
    there.choose = lambda body: say("ok")
    text = Prompt(1, None, "Say: ", None, {})
    for model, path in (("ft:gpt-4o-mini:acme::1", "/chat/completions"), ("ft:babbage-002:acme::1", "/completions")):
        settings = Settings(model, 0.5, 16, 1)
        with Journal(tmp_path / f"{model[:9]}.jsonl", {}) as journal:
            asked = list(fitting([text], settings))
            record(client, settings, asked, journal)
            assert journal[asked[0].key]["message"] == {"role": "assistant", "content": "ok"}
        assert there.asked[-1].path == path
        client.pace._stopped.clear()
    chat, completion = (one.body for one in there.asked)
    assert chat == {
        "model": "ft:gpt-4o-mini:acme::1",
        "temperature": 0.5,
        "max_completion_tokens": 16,
        "messages": [{"role": "user", "content": "Say: "}],
    }
    assert completion == {"model": "ft:babbage-002:acme::1", "temperature": 0.5, "max_tokens": 16, "prompt": "Say: "}


def test_calls_are_recorded_as_training_files_have_them(
    there: FakeOpenAI, client: OpenAIClient, tmp_path: Path
) -> None:
    function = {"name": "find", "arguments": '{"order": 7}'}
    call = {"id": "call_1", "type": "function", "function": function}
    there.choose = lambda body: say(None, finish_reason="tool_calls", tool_calls=[{**call, "index": 0}], annotations=[])
    tools = [{"type": "function", "function": {"name": "find"}}]
    prompt = Prompt(1, [{"role": "user", "content": "Where is it?"}], None, None, {"tools": tools})
    with Journal(tmp_path / "journal.jsonl", {}) as journal:
        record(client, SETTINGS, [prompt], journal)
        answer = journal[prompt.key]["message"]
    assert answer == {"role": "assistant", "content": None, "tool_calls": [call]}
    assert there.asked[0].body["tools"] == tools
    assert prompt.row(answer) == {"messages": [{"role": "user", "content": "Where is it?"}, answer], "tools": tools}
