"""The page of settings says what the classes say, and nothing reads a variable that it does not name."""

from pathlib import Path

from docs.settings_page import PAGE, render, variables_in

ROOT = Path(__file__).parents[3]
PACKAGES = (
    "api",
    "worker",
    "inference",
    "registry",
    "osora",
    "console",
    "osora_core",
    "osora_common",
    "osora_data",
    "migrations",
    "examples",
)


def test_the_page_is_what_the_classes_say() -> None:
    assert PAGE.read_text() == render(), "docs/settings.md is not of these settings: run `make docs`"


def test_every_variable_that_a_program_reads_is_on_the_page() -> None:
    page = PAGE.read_text()
    programs = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    read = {name: path.name for path in programs for name in variables_in(path.read_text())}
    assert len(read) > 3
    assert {name: file for name, file in read.items() if f"| `{name}` |" not in page} == {}


def test_what_a_program_reads_is_found_in_its_text() -> None:
    text = 'os.environ["OSORA_A"], os.environ.get("OSORA_B", ""), "OSORA_C"'
    assert variables_in(text) == {"OSORA_A", "OSORA_B"}
