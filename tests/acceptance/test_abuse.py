"""Attacks in small, against the running installation."""

import asyncio
import json
import time
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.abuse import __main__ as abuse
from benchmarks.abuse.attacker import Attacker
from benchmarks.abuse.attacks import ATTACKS, bodies, generations
from benchmarks.abuse.place import stranger
from tests.acceptance.conftest import BASE, Service, child

# Whole answers, of up to 32 times a thousand tokens.
_LONG = ("flood", "stops at the limit", "answers")


def test_a_tenant_goes_on_working_while_another_one_attacks(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How fast is for the benchmark to say: here is a machine that others keep busy."""
    path = tmp_path / "abuse.json"
    keys = [
        *("--key", stranger(service.url, service.key, "healthy")),
        *("--attacker-key", stranger(service.url, service.key, "attacker")),
    ]
    turns = ["--seconds", "6", "--rounds", "1", "--settle", "0", "--only", "stop strings", "--only", "half bodies"]
    monkeypatch.setattr(
        "sys.argv", ["abuse", "--url", service.url, "--pid", str(service.pid), *keys, *turns, "--json", str(path)]
    )
    with pytest.raises(SystemExit):  # by the targets
        abuse.main()
    written = json.loads(path.read_text())
    assert [row["attack"] for row in written["rows"]] == ["stop strings", "half bodies"]
    for row in written["rows"]:
        assert row["failures"] == 0, row["what_failed"]
        assert row["tokens_per_second_during"] > 0
        assert row["get_p95_during"] > 0
        assert row["inference_mib"]
    assert set(written["rows"][0]["answers"]) <= {"400", "413", "429", "cut off"}
    assert len(written["targets"]) == 7


def test_no_attack_is_answered_by_an_error_of_ours(service: Service) -> None:
    """Each body and each generation of the benchmark once: refused or answered, and never in the middle of it."""

    async def strike_once() -> dict[str, Counter[str]]:
        answers = {}
        attacker = Attacker(service.url, stranger(service.url, service.key, "attacker"), BASE)
        async with attacker.http:
            for name, attack in ATTACKS.items():
                if attack.strike.__module__ in (bodies.__name__, generations.__name__) and name not in _LONG:
                    await attack.strike(attacker)
                    answers[name], attacker.answers = attacker.answers, Counter()
        return answers

    answers = asyncio.run(strike_once())
    assert len(answers) > 20
    wrong = {
        name: dict(given)
        for name, given in answers.items()
        if not given or not all(answer.startswith(("2", "4")) for answer in given)
    }
    assert not wrong


def test_training_leaves_the_processor_to_answers(service: Service) -> None:
    worker, inference, api = (child(service, program).nice() for program in ("worker", "inference", "api"))
    assert worker == inference + 5 == api + 5


def test_uploads_that_break_off_leave_no_open_file(service: Service) -> None:
    before = _descriptors(service)

    async def break_off() -> None:
        attacker = Attacker(service.url, stranger(service.url, service.key, "attacker"), BASE)
        async with attacker.http:
            for _ in range(40):
                await ATTACKS["left files"].strike(attacker)

    asyncio.run(break_off())
    while _descriptors(service) > before + 10:  # until the last have been noticed
        time.sleep(0.1)


def _descriptors(service: Service) -> int:
    """What the API has open but for its pool of connections to the database, which grows with what is asked at once."""
    api = child(service, "api")
    pooled = [opened for opened in api.open_files() if Path(opened.path).name.startswith("osora.db")]
    return api.num_fds() - len(pooled)
