"""The README's walk, pasted as it stands."""

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import typer
from peft import PeftModel
from transformers import AutoModelForCausalLM

from osora.cli import app
from tests.acceptance.conftest import Service

ROOT = Path(__file__).parents[2]


QUEUES = {"billing", "shipping", "returns", "technical", "account"}


def blocks(section: str, language: str) -> str:
    """The README's code between two of its markers."""
    readme = (ROOT / "README.md").read_text()
    text = readme[readme.index(f"<!-- {section}: begin") : readme.index(f"<!-- {section}: end")]
    return "\n".join(re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL))


@pytest.mark.timeout(1800)
def test_the_python_program_works_as_written(service: Service) -> None:
    env = {**os.environ, "OSORA_URL": service.url, "OSORA_DATA_DIR": str(service.data_dir)}
    command = [sys.executable, "-c", blocks("python", "python")]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *events, answer = done.stdout.splitlines()
    assert "The job has successfully completed" in events
    sorted_ticket = json.loads(answer)
    assert (sorted_ticket["queue"] in QUEUES, sorted_ticket["product"]) == (True, "speaker")


@pytest.mark.timeout(1800)
def test_the_walk_works_as_written(service: Service, tmp_path: Path) -> None:
    script = "set -euo pipefail\n" + blocks("walk", "bash").replace("/tmp/", f"{tmp_path}/")
    env = {**os.environ, "OSORA_URL": service.url, "OSORA_DATA_DIR": str(service.data_dir)}
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    events, _, answer = done.stdout.rpartition("\n")
    assert "event: done" in events
    generation = json.loads(answer)
    sorted_ticket = json.loads(generation["text"])
    assert (sorted_ticket["queue"] in QUEUES, sorted_ticket["product"]) == (True, "speaker")
    assert generation["receipt"]["adapter_sha256"]
    archive = zipfile.ZipFile(io.BytesIO((tmp_path / "adapter.zip").read_bytes()))
    assert sorted(archive.namelist()) == ["adapter_config.json", "adapter_model.safetensors"]


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_the_library_works_as_written(tmp_path: Path) -> None:
    program = blocks("library", "python")
    env = {**os.environ, "OSORA_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", program.replace("/tmp/tickets", str(tmp_path / "tickets"))]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "FutureWarning" not in done.stderr
    assert "trainable params: 26,624 || all params: 6,977,792" in done.stdout
    base = AutoModelForCausalLM.from_pretrained(ROOT / "models" / "osora-tiny")
    lora = PeftModel.from_pretrained(base, tmp_path / "tickets-lora").peft_config["default"]
    assert (lora.peft_type, lora.r) == ("LORA", 128)


def test_files_and_folders_that_it_links_to_exist() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    assert len(pages) > 10
    links = {
        (page, link.partition("#")[0])
        for page in pages
        for link in re.findall(r"\]\(([^)]+)\)", page.read_text())
        if not link.startswith(("https:", "#"))
    }
    assert {(page.name, link) for page, link in links if not (page.parent / link).exists()} == set()
    folders = "|".join(path.name for path in ROOT.iterdir() if path.is_dir())
    files = (rf"`((?:{folders})/[\w/.]+)`", rf"^pytest .*?((?:{folders})/[\w/.]+)")
    named = {(page.name, name) for page in pages for file in files for name in re.findall(file, page.read_text(), re.M)}
    assert len(named) > 20
    # A change log speaks of what was.
    assert {(page, name) for page, name in named if not (ROOT / name).exists() and page != "CHANGELOG.md"} == set()


def headings(page: Path) -> set[str]:
    """As GitHub names them in links."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def test_headings_that_pages_link_to_exist() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    links = [
        (page, (page.parent / file) if file else page, heading)
        for page in pages
        for file, heading in re.findall(r"\]\(([\w./-]*)#([^)]+)\)", page.read_text())
    ]
    assert len(links) > 20
    assert {(page.name, heading) for page, target, heading in links if heading not in headings(target)} == set()


def test_the_make_commands_exist() -> None:
    text = "\n".join(page.read_text() for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"(?:^|`)make ([a-z][\w-]*)", text, re.MULTILINE))
    assert {"demo", "demo-openai", "test", "docs"} <= named
    assert {target for target in named if not re.search(rf"^{target}:", makefile, re.MULTILINE)} == set()


def test_the_commands_of_osora_exist() -> None:
    text = "\n".join(page.read_text() for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))
    named = set(re.findall(r"(?:^|`|\n)(?:OSORA_\w+=\S+ )*osora ([a-z]+)\b", text))
    assert {"serve", "import", "compare", "aliases", "webhooks"} <= named
    assert named <= set(typer.main.get_group(app).commands)
