"""A client without the service's dependencies."""

import tomllib

import pytest

from tests.support import light

HEAVY = {"torch", "transformers", "celery", "fastapi", "sqlalchemy", "uvicorn", "numpy"}


def test_what_a_client_brings_is_little() -> None:
    brought = light.modules()
    assert {"httpx", "rich", "typer"} <= brought
    assert not brought & (HEAVY | {"starlette", "alembic", "redis", "obstore", "tokenizers"})
    extras = tomllib.loads((light.ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {line.partition(">")[0].partition("[")[0] for line in extras["server"]} >= HEAVY


def test_every_module_of_the_client_can_be_imported() -> None:
    program = """
import importlib, pkgutil
import osora, osora.cli, osora.sdk, osora.migrate
for package in (osora.cli, osora.sdk, osora.migrate):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
print(osora.Osora.__name__, osora.AsyncOsora.__name__)
"""
    done = light.run(program)
    assert (done.returncode, done.stdout) == (0, "Osora AsyncOsora\n"), done.stderr


def command(*words: str) -> str:
    return f"\nimport sys\nsys.argv = {['osora', *words]!r}\nfrom osora.cli import main\nmain()\n"


def test_its_help() -> None:
    done = light.run(command("serve", "--help"))
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


@pytest.mark.parametrize("name", ["serve", "doctor"])
def test_what_it_cannot_do_it_says_in_a_sentence(name: str) -> None:
    done = light.run(command(name))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: This installation of Osora is a client: it has no alembic and no celery and ")
    assert done.stderr.endswith(" and no uvicorn. Next: pip install 'osora[server]'.\n")
