"""All checks, each quick, in the order in which a start would come to them."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from osora.doctor.finding import AddedBase, Finding
from osora.doctor.machine import check_broker, check_data_dir, check_device, check_memory, check_ports
from osora.serve.plan import module
from osora_common.base_facts import BaseFacts
from osora_common.base_list import parse_bases
from osora_common.base_lookup import look_up
from osora_common.base_weights import values
from osora_common.unusable_base import UnusableBaseError

_SECONDS = 30


def examine(data_dir: Path) -> Iterator[Finding]:
    """What is found, as soon as it is known. Nothing is made or started."""
    env = {**os.environ, "OSORA_DATA_DIR": str(data_dir)}
    yield check_data_dir(data_dir)
    # Bases have a finding each, below.
    refused = _ask("inference.check", env={**env, "OSORA_BASES": "osora-tiny"})
    told = _ask("registry", "check", env=env)
    stored = [finding for finding in told if not isinstance(finding, AddedBase)]
    added = [(base.item.removeprefix("base "), base.source) for base in told if isinstance(base, AddedBase)]
    wrong = {finding.message: finding for finding in (*refused, *stored) if finding.item == "settings"}
    yield from wrong.values() or [Finding("settings", "can be used")]
    yield from (finding for finding in stored if finding.item != "settings")
    if not env.get("OSORA_BROKER_URL"):
        yield check_broker()
    yield check_ports(data_dir, env)
    device = check_device(env)
    yield device
    if wrong:
        return
    total = 0
    for name, path in [*parse_bases(env.get("OSORA_BASES") or "osora-tiny"), *added]:
        finding, size = _base(name, path)
        total += size
        yield finding
    yield check_memory(total, device.message.startswith("the CPU"))


def _ask(*words: str, env: Mapping[str, str]) -> list[Finding]:
    """What one of our programs finds: a line of JSON each, or the sentence that it ends with."""
    name = " ".join(words)
    try:
        told = subprocess.run(module(*words), capture_output=True, text=True, timeout=_SECONDS, env=dict(env))
    except subprocess.TimeoutExpired as expired:
        lines, code, said = (expired.stdout or b"").decode(), 0, ""
        missing = [Finding(name, f"there was no answer within {_SECONDS} s", "see whether the addresses are right")]
    else:
        lines, code, said = told.stdout, told.returncode, (told.stderr.strip().splitlines() or ["no reason given"])[-1]
        missing = []
    found = map(json.loads, lines.splitlines())
    findings = [(AddedBase if "source" in line else Finding)(**line) for line in found]
    if code == os.EX_CONFIG:
        message, _, next_action = said.partition(". Next: ")
        missing = [Finding("settings", message.rstrip("."), next_action or "correct it, or leave it out")]
    elif code != 0:
        missing = [Finding(name, f"it failed: {said}", f"see what `python -m {name}` prints")]
    return [*findings, *missing]


def _base(name: str, path: str) -> tuple[Finding, int]:
    """What is to be said of a base, and how many values it has, if it is here."""
    item = f"base {name}"
    try:
        source, facts = look_up(path)
    except UnusableBaseError as error:
        return Finding(item, error.message, error.next_action), 0
    folder = Path(source)
    if not folder.is_dir():
        return Finding(item, f"{_described(facts)}; {source} is downloaded at the first start"), 0
    size = values(folder)
    return Finding(item, f"{_described(facts)}, {size / 1e6:.1f} million values"), size


def _described(facts: BaseFacts) -> str:
    template = "a chat template" if facts.has_chat_template else "no chat template (so it takes no conversations)"
    return f"family {facts.family}, {template}"
