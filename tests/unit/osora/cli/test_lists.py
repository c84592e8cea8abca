"""Lists: whole at any width, never silently cut, and one shape for people, pipes and programs."""

import json
from typing import Any
from urllib.parse import parse_qs

import pytest
from typer.testing import CliRunner, Result

from osora.cli import app
from osora.cli.file_report import print_report
from osora.cli.output import print_error, print_fields, sentences

from ..conftest import Answer, FakeService, Request


def osora(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def item(number: int) -> dict[str, Any]:
    return {
        "id": f"x-{number:03}",
        "name": f"n-{number:03}",
        "filename": "f.jsonl",
        "base": "osora-tiny",
        "model": "osora-tiny",
        "status": "succeeded",
        "created_at": 1_700_000_000,
        "updated_at": 1_700_000_000,
        "fine_tuned_model": None,
        "targets": {"osora-tiny": 1},
        "version": 1,
        "url": "https://hooks.example.com/",
    }


def serve(service: FakeService, path: str, count: int, key: str = "id") -> None:
    """So many objects, in pages as the service gives them: at most 100 at once, each after the one named."""
    everything = [item(number) for number in range(count)]

    def page(request: Request) -> Answer:
        asked = {name: values[0] for name, values in parse_qs(request.query).items()}
        limit, after = int(asked.get("limit", 20)), asked.get("after")
        assert limit <= 100
        start = 0 if after is None else 1 + next(i for i, one in enumerate(everything) if one[key] == after)
        found = everything[start : start + limit]
        return Answer(body={"data": found, "has_more": start + limit < count})

    service.routes["GET", path] = page


PAGED = [
    ("jobs", "/jobs", "id"),
    ("adapters", "/adapters", "id"),
    ("aliases", "/aliases", "name"),
    ("webhooks", "/webhook_endpoints", "id"),
]


@pytest.mark.parametrize(("command", "path", "key"), PAGED)
def test_a_list_says_that_there_is_more_and_gives_all_on_request(
    service: FakeService, command: str, path: str, key: str
) -> None:
    serve(service, path, 250, key)
    short = osora(command)
    assert len(short.stdout.splitlines()) == 21
    assert short.stderr == "These are the newest 20; there are more: --all, or a higher --limit.\n"
    longer = osora(command, "list", "--limit", "130", "--json")
    assert [one[key] for one in json.loads(longer.stdout)] == [item(number)[key] for number in range(130)]
    assert "there are more" in json.loads(longer.stderr)["note"]
    whole = osora(command, "--all")
    assert (len(whole.stdout.splitlines()), whole.stderr) == (251, "")
    exactly = osora(command, "--limit", "250")
    assert (len(exactly.stdout.splitlines()), exactly.stderr) == (251, "")


def test_events_and_deliveries_are_not_cut_silently_either(service: FakeService) -> None:
    event = {"id": "ftevent-1", "type": "message", "message": "a", "created_at": 1, "data": {}}
    service.on("GET", "/jobs/ftjob-1/events", Answer(body={"data": [event], "has_more": True}))
    assert "there are more" in osora("jobs", "events", "ftjob-1", "--limit", "1").stderr
    delivery = {"id": "wh_1", "created_at": 0, "event_type": "b", "status": "pending", "attempts": []}
    service.on("GET", "/webhook_endpoints/webhook-1/deliveries", Answer(body={"data": [delivery], "has_more": True}))
    assert "there are more" in osora("webhooks", "log", "webhook-1", "--limit", "1").stderr


def test_what_is_piped_has_neither_colour_nor_boxes_and_exact_times(service: FakeService) -> None:
    serve(service, "/jobs", 2)
    piped = osora("jobs").stdout
    assert piped.isascii()
    assert "\x1b" not in piped
    assert "ago" not in piped
    assert "2023-11-1" in piped


def test_a_name_that_would_steer_the_terminal_or_break_the_table(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = {**item(1), "name": "a\x1b[2Jb\nc"}
    service.on("GET", "/adapters", Answer(body={"data": [hostile]}))
    assert len(osora("adapters").stdout.splitlines()) == 2
    monkeypatch.setattr("osora.cli.output.is_terminal", lambda: True)
    shown = osora("adapters").stdout
    assert len(shown.splitlines()) == 2
    assert "\x1b" not in shown
    assert "\N{REPLACEMENT CHARACTER}[2Jb c" in shown


def test_a_name_does_not_turn_the_order_of_its_letters(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    service.on("GET", "/adapters", Answer(body={"data": [{**item(1), "name": "gpj\u202eexe \u05d0"}]}))
    monkeypatch.setattr("osora.cli.output.is_terminal", lambda: True)
    shown = osora("adapters").stdout
    assert "\u202e" not in shown
    assert "gpj\N{REPLACEMENT CHARACTER}exe \u05d0" in shown


def test_json_steers_no_terminal_and_loses_nothing(service: FakeService) -> None:
    hostile = {**item(1), "name": "a\x9b2J\x7f\u202eé"}
    service.on("GET", "/adapters", Answer(body={"data": [hostile]}))
    shown = osora("adapters", "--json").stdout
    assert "é" in shown
    assert not {"\x9b", "\x7f", "\u202e"} & {*shown}
    assert json.loads(shown)[0]["name"] == hostile["name"]


def test_an_error_steers_no_terminal_where_only_the_output_is_piped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    print_error("no job 'a\x1b[2J'", None, as_json=False)
    assert "\x1b[2J" not in capsys.readouterr().err


def test_a_narrow_terminal_is_given_whole_ids_and_fewer_columns(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("osora.cli.output.is_terminal", lambda: True)
    job = {**item(1), "id": "ftjob-1k18y4en9wanj894e9mptpw81p9", "user_provided_suffix": "tickets"}
    service.on("GET", "/jobs", Answer(body={"data": [job | {"fine_tuned_model": f"ft:{'x' * 60}"}]}))
    monkeypatch.setenv("COLUMNS", "80")
    narrow = osora("jobs").stdout.splitlines()
    assert all(len(line) <= 80 for line in narrow)
    assert narrow[1].startswith(f"{job['id']}  succeeded  tickets")
    assert narrow[1].endswith("d ago")
    monkeypatch.setenv("COLUMNS", "200")
    assert osora("jobs").stdout.splitlines()[1].endswith("x" * 60)


@pytest.mark.parametrize(
    ("message", "next_step", "said"),
    [
        ("no job", None, "no job."),
        ("no job.", "wait.", "no job. Next: wait."),
        (
            "`mesages` is not known",
            "did you mean `messages`?",
            "`mesages` is not known. Next: did you mean `messages`?",
        ),
    ],
)
def test_a_sentence_is_closed_once(message: str, next_step: str | None, said: str) -> None:
    assert sentences(message, next_step) == said


def test_lists_in_fields_are_words_and_long_names_stay_in_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields({"id": "adp-1", "modules": ["q", "v"], "warnings": [], "base fingerprint": "ab"})
    assert capsys.readouterr().out.splitlines() == [
        "id               adp-1",
        "modules          q, v",
        "base fingerprint ab",
    ]


def test_a_report_of_no_container_names_none(capsys: pytest.CaptureFixture[str]) -> None:
    report = {"format": None, "rows": 0, "container": "", "bytes": 9, "notes": [], "warnings": [], "tokens": {}}
    print_report(report, "a.bin")
    assert capsys.readouterr().out == "a.bin: 0 rows (no known format), 9 B\n"
