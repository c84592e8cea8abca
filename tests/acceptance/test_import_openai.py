"""Leaving OpenAI: the real command and the real service, and an account there that is played by a small server."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Service
from tests.acceptance.test_service import dataset, finish, submit
from tests.support import terminal
from tests.support.fake_openai import KEY, Failure, FakeOpenAI, Gate, playing, say

OSORA = [sys.executable, "-P", "-m", "osora"]
MODEL = "ft:gpt-4o-mini-2024-07-18:acme::cities"

Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def there() -> Iterator[FakeOpenAI]:
    with playing() as fake:
        yield fake


@pytest.fixture
def env(service: Service, there: FakeOpenAI) -> dict[str, str]:
    """With the account's key."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("OSORA_", "OPENAI_"))}
    own |= {"OSORA_URL": service.url, "OSORA_API_KEY": service.key}
    return own | {"OPENAI_BASE_URL": there.url, "OPENAI_API_KEY": KEY}


@pytest.fixture
def start(env: dict[str, str]) -> Start:
    """Starts `osora …` where nobody can be asked."""

    def start(*words: str, **variables: str) -> subprocess.Popen[str]:
        pipes: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([*OSORA, *words], env=env | variables, text=True, **pipes)

    return start


@pytest.fixture
def command(start: Start) -> Run:
    """Runs `osora …` to its end; whatever it prints, the key is not in it."""

    def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        with start(*words, **variables) as process:
            said, complained = process.communicate(timeout=240)
        assert KEY not in said + complained
        assert "Traceback" not in complained
        return subprocess.CompletedProcess(words, process.returncode, said, complained)

    return run


@pytest.fixture
def city(tmp_path: Path, request: pytest.FixtureRequest) -> bytes:
    """A training file that no other test has."""
    return (
        dataset(tmp_path / "city.jsonl", "Oslo").read_bytes()
        + json.dumps(
            {"messages": [{"role": "user", "content": request.node.name}, {"role": "assistant", "content": "Oslo"}]}
        ).encode()
    )


def outcomes(ran: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return {one["source"]: one for one in json.loads(ran.stdout)["jobs"]}


def test_jobs_come_with_their_files_settings_and_names(
    command: Run, there: FakeOpenAI, service: Service, city: bytes
) -> None:
    there.files = {"file-train": ("oslo.jsonl", city), "file-valid": ("valid.jsonl", city.splitlines()[0])}
    names = [f"ft:gpt-4o-mini-2024-07-18:acme:cities:{number}" for number in (901, 902)]
    there.add_job(901, fine_tuned_model=names[0], validation_file="file-valid", metadata={"team": "maps"})
    there.add_job(902, fine_tuned_model=names[1], model=names[0], hyperparameters={"n_epochs": 1, "batch_size": 8})
    ran = command("import", "openai", "--all", "--base", "osora-tiny", "--hyperparameters", "theirs", "--wait")
    assert ran.returncode == 0, ran.stderr
    assert "learning_rate_multiplier" in ran.stdout
    assert "2 of 2 answer here to their old name" in ran.stdout
    origins = ({"imported_from": f"ftjob-{number}"} for number in (901, 902))
    first, second = (next(service.sdk.jobs.list(metadata=origin)) for origin in origins)
    assert first["metadata"] == {"team": "maps", "imported_from": "ftjob-901", "imported_model": names[0]}
    assert (first["hyperparameters"]["n_epochs"], first["hyperparameters"]["batch_size"], first["seed"]) == (2, 8, 7)
    assert first["fine_tuned_model"].split(":")[3] == "cities"
    assert service.sdk.files.content(first["training_file"]) == city
    assert second["osora"]["settings"]["from_adapter"] == first["fine_tuned_model"]
    assert second["training_file"] == first["training_file"], "the same file is copied once"
    answer = service.sdk.generate("Which city?", adapter=names[0], max_tokens=4)
    assert answer["receipt"]["adapter_name"] == first["fine_tuned_model"]


def test_killed_and_run_again_it_goes_on_and_does_nothing_twice(
    command: Run, start: Start, there: FakeOpenAI, service: Service, city: bytes
) -> None:
    there.files = {"file-train": ("again.jsonl", city), "file-other": ("other.jsonl", city + b"\n" + city)}
    there.add_job(911)
    there.add_job(912, training_file="file-other")
    there.gates["file-other"] = Gate()
    with start("import", "openai", "--all") as first:
        assert there.gates["file-other"].reached.wait(120)
        first.kill()
    there.gates.pop("file-other").opened.set()
    ran = [command("import", "openai", "--all", "--json", *words) for words in ((), ("--wait",), ("--wait",))]
    assert [one.returncode for one in ran] == [0, 0, 0], ran
    for number in (911, 912):
        assert len({outcomes(one)[f"ftjob-{number}"]["job"] for one in ran}) == 1
        assert len(list(service.sdk.jobs.list(metadata={"imported_from": f"ftjob-{number}"}))) == 1
    assert all(one["alias"] == "set" for one in outcomes(ran[-1]).values())
    planned = command("import", "openai", "--dry-run", "--json")
    assert (planned.returncode, outcomes(planned)) == (0, outcomes(ran[-1]))
    assert len(there.sent("/files/file-train/content")) == 1
    names = [file["filename"] for file in service.sdk.files.list()]
    assert (names.count("again.jsonl"), names.count("other.jsonl")) == (1, 1)


def test_what_cannot_come_is_named_and_the_others_come(
    command: Run, there: FakeOpenAI, service: Service, city: bytes
) -> None:
    there.files = {"file-train": ("good.jsonl", city), "file-bad": ("bad.jsonl", city + b'\n{"text": "x"}\n')}
    there.add_job(921, training_file="file-expired")
    there.add_job(922, training_file="file-bad")
    there.add_job(923, method={"type": "reinforcement", "reinforcement": {}})
    there.add_job(924, status="running", fine_tuned_model=None)
    there.add_job(925, model="ft:gpt-4o-mini-2024-07-18:other::gone")
    good = there.add_job(926)
    jobs = [word for number in range(921, 927) for word in ("--job", f"ftjob-{number}")]
    planned = command("import", "openai", *jobs, "--dry-run", "--json")
    assert list(service.sdk.jobs.list(metadata={"imported_from": "ftjob-926"})) == [], "nothing is done"
    assert outcomes(planned)["ftjob-921"]["status"] == "left out", "that is known without a copy"
    ran = command("import", "openai", *jobs, "--json")
    assert ran.returncode == 1
    found = outcomes(ran)
    reasons = {number: found[f"ftjob-{number}"]["reason"] for number in range(921, 926)}
    assert "file-expired is not there any more" in reasons[921]
    assert (
        f"line {len(city.splitlines()) + 1}" in reasons[922] or found["ftjob-922"]["line"] == len(city.splitlines()) + 1
    )
    assert "reinforcement" in reasons[923]
    assert "running there" in reasons[924]
    assert "ft:gpt-4o-mini-2024-07-18:other::gone" in reasons[925]
    assert all(found[f"ftjob-{number}"]["status"] == "left out" for number in reasons)
    assert found[good["id"]]["job"] is not None


def test_a_key_that_is_wrong_or_goes_to_the_wrong_place(command: Run, there: FakeOpenAI, service: Service) -> None:
    refused = command("import", "openai", "--all", OPENAI_API_KEY=f"{KEY}-wrong")
    assert refused.returncode == 4
    assert "does not take this key" in refused.stderr
    assert command("import", "openai", "--all", OPENAI_API_KEY="").returncode == 2, "nobody can be asked"
    ours = command("import", "openai", "--all", OPENAI_API_KEY=service.key)
    assert (ours.returncode, "a key of Osora" in ours.stderr) == (2, True)
    here = command("import", "openai", "--all", OPENAI_BASE_URL=f"{service.url}/v1")
    assert (here.returncode, "this Osora itself" in here.stderr) == (2, True)
    nobody = command("import", "openai", "--all", "--from", "http://127.0.0.1:9/v1")
    assert nobody.returncode == 3
    assert there.asked == [one for one in there.asked if one.path == "/fine_tuning/jobs"]


def test_a_person_types_the_key_unseen_and_chooses(env: dict[str, str], there: FakeOpenAI, city: bytes) -> None:
    there.files = {"file-train": ("typed.jsonl", city)}
    for number in (931, 932):
        there.add_job(number, training_file="file-train" if number == 932 else "file-gone")
    with terminal.running([*OSORA, "import", "openai"], env | {"OPENAI_API_KEY": ""}, columns=120) as screen:
        screen.wait_for("not shown")
        screen.type(f"{KEY}\n")
        screen.wait_for("Which?")
        screen.type("2\n")
        assert screen.finish() == 0, screen.seen
    assert KEY not in screen.seen
    assert "ftjob-931" in screen.seen
    assert "Job ftjob-932 made again as" in screen.seen
    assert [one.path for one in there.sent("/files")] == ["/files/file-train", "/files/file-train/content"]


def test_answers_are_recorded_while_the_old_model_still_answers(
    command: Run, start: Start, there: FakeOpenAI, service: Service, tmp_path: Path
) -> None:
    cities = ["Oslo", "Lima", "Rome", "Bern", "Kyiv", "Cairo", "Quito", "Paris", "Delhi", "Minsk"]
    file = tmp_path / "prompts.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": f"{city}?"}, {"role": "assistant", "content": "?"}]}
        for city in cities
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    spoken = {"Bern?": say(""), "Kyiv?": say(None, refusal="No."), "Cairo?": say("half", finish_reason="length")}
    third = Gate()

    def choose(body: Any) -> dict[str, Any]:
        asked = body["messages"][-1]["content"]
        if asked == "Rome?":
            third.reached.set()
            third.opened.wait(60)
        return spoken.get(asked, say(f"{asked[:-1]} it is"))

    there.choose = choose
    there.models = {MODEL}
    words = ["import", "openai", "--record", str(file), "--model", MODEL, "--output", str(tmp_path / "out")]
    words += ["--requests-per-minute", "100000", "--price-in", "3", "--price-out", "6"]
    assert command(*words).returncode == 2, "nobody confirmed"
    assert there.asked == []
    with start(*words, "--yes", "--concurrency", "1") as first:
        assert third.reached.wait(120)
        first.kill()
    with (tmp_path / "out" / "journal.jsonl").open("a") as journal:
        journal.write('{"key": "half a li')
    third.opened.set()
    there.wait_until_idle()
    already = len(there.asked)
    there.failures = [Failure("/chat", 429, headers={"retry-after-ms": "20"})]
    ran = command(*words, "--yes", "--held-out-share", "0.3", "--concurrency", "3")
    assert ran.returncode == 0, ran.stderr
    assert "10 requests" not in ran.stdout
    assert "8 requests" in ran.stdout, "what was answered is not asked again, and the same prompt once"
    assert len(there.asked) == already + 8 + 1
    assert there.most_at_once <= 3
    assert "At $3 and $6 a million tokens, which you gave" in ran.stdout
    assert "1 cut, 1 empty, 1 refusal" in ran.stdout
    train, held = (
        [json.loads(line) for line in (tmp_path / "out" / name).read_text().splitlines()]
        for name in ("train.jsonl", "held-out.jsonl")
    )
    assert (len(train), len(held)) == (5, 2)
    for row in train + held:
        question, answer = row["messages"]
        assert answer == {"role": "assistant", "content": f"{question['content'][:-1]} it is"}
    assert service.sdk.files.upload(tmp_path / "out" / "train.jsonl")["osora"]["rows"] == 5, "it can be trained on"
    again = command(*words, "--yes")
    assert (again.returncode, "exists already" in again.stderr) == (2, True)
    assert len(there.asked) == already + 9
    gone = command(*words[:4], "--model", "ft:gone", "--output", str(tmp_path / "gone"), "--yes")
    assert gone.returncode == 5
    assert not (tmp_path / "gone" / "train.jsonl").exists()


def test_old_answers_beside_the_new_ones(command: Run, service: Service, tmp_path: Path) -> None:
    def rows(path: Path, *pairs: tuple[str, str | None]) -> str:
        asked = [
            [{"role": "user", "content": question}] + ([{"role": "assistant", "content": answer}] if answer else [])
            for question, answer in pairs
        ]
        path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in asked))
        return str(path)

    adapter = finish(service.sdk, submit(service.sdk, dataset(tmp_path / "oslo.jsonl", "Oslo"), 8))["fine_tuned_model"]
    file = rows(tmp_path / "held.jsonl", ("Which city?", "Oslo"), ("Name a city.", "Oslo "), ("Where to?", "To Lima"))
    ran = command("compare", file, adapter, "--json", "--max-tokens", "4")
    found = json.loads(ran.stdout)
    assert ran.returncode == 0
    assert (found["rows"], found["exact_match"], found["answered_by"]) == (3, pytest.approx(2 / 3), {adapter: 3})
    assert [(one["line"], one["old"], one["new"]) for one in found["disagreements"]] == [(3, "To Lima", "Oslo")]
    assert command("compare", file, adapter, "--at-least", "0.9", "--max-tokens", "4").returncode == 1
    table = command("compare", file, adapter, "--at-least", "0.6", "--max-tokens", "4")
    assert table.returncode == 0
    assert "prompt  Where to?\n  old     To Lima\n  new     Oslo\n" in table.stdout
    prompts = rows(tmp_path / "prompts.jsonl", ("Which city?", None))
    both = json.loads(
        command("compare", prompts, adapter, "--against", "osora-tiny", "--json", "--max-tokens", "4").stdout
    )
    assert (both["rows"], both["exact_match"]) == (1, 0)
    missing = command("compare", prompts, adapter)
    assert (missing.returncode, "line 1 has no answer" in missing.stderr) == (2, True)
    assert command("compare", file, "ft:nobody").returncode == 5
