"""The arrows between our packages, and what none of them may do. Read from the source, nothing is imported."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Package to those of ours that it may import.
ARROWS = {
    "api": {"registry", "osora_common"},
    "worker": {"registry", "osora_core", "osora_common"},
    "inference": {"osora_core", "osora_common"},
    "osora": set(),
    "registry": {"migrations", "osora_common"},  # it finds the scripts that Alembic runs
    "osora_core": set(),
    "osora_common": set(),
    "migrations": {"registry"},
}
ENGINES = {"torch", "transformers", "peft", "safetensors", "tokenizers"}
SERVICES = {"fastapi", "starlette", "uvicorn", "httpx", "celery", "kombu", "redis", "sqlalchemy", "alembic", "obstore"}
FOREIGN = {
    "api": ENGINES,
    "registry": ENGINES | {"fastapi"},
    "osora": ENGINES,
    "osora_common": ENGINES,
    "osora_core": SERVICES,
}
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def modules(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, package
    return found


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imported(path: Path) -> Iterator[str]:
    """The top-level name of every import, also of those inside functions, and of what is imported by name."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # A relative import stays within its own package: ours are one folder deep below the top.
            assert node.level == 0, f"{path}:{node.lineno} is relative"
            assert node.module is not None
            yield node.module.partition(".")[0]
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("import_module", "importlib.import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value).partition(".")[0]


@pytest.mark.parametrize("package", ARROWS)
def test_imports_follow_the_arrows(package: str) -> None:
    allowed = ARROWS[package] | {package}
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imported(path)
        if name in ARROWS and name not in allowed
    }
    assert wrong == set()


@pytest.mark.parametrize("package", FOREIGN)
def test_packages_stay_within_their_trade(package: str) -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imported(path)
        if name in FOREIGN[package]
    }
    assert wrong == set()


@pytest.mark.parametrize("package", ARROWS)
def test_nothing_stored_is_ever_executed(package: str) -> None:
    """No pickle in any form, and no code from a model's repository."""
    wrong = set()
    for path in modules(package):
        wrong |= {f"{path.name} imports {name}" for name in imported(path) if name in UNPICKLERS}
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.save"):
                wrong.add(f"{path.name}:{node.lineno} uses {ast.unparse(node)}")
            if isinstance(node, ast.ImportFrom) and node.module == "torch":
                wrong |= {f"{path.name}: torch.{a.name}" for a in node.names if a.name in ("load", "save")}
            if isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle"):
                value = ast.unparse(node.value)
                wrong |= {f"{path.name}:{node.value.lineno} {node.arg}={value}"} if value != "False" else set()
    assert wrong == set()


def test_nobody_in_production_observes_the_points_of_an_attempt() -> None:
    """The fault suite strikes there; neither a setting nor a program of ours can."""
    users = {
        str(path.relative_to(ROOT))
        for package in ARROWS
        for path in modules(package)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "observe"
        if "worker" in set(imported(path)) or path.parent.name == "worker"
    }
    assert users == set()
    assert "environ" not in (ROOT / "worker" / "points.py").read_text()
