"""The arrows between packages: who may import whom."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = {"osora_core", "registry", "api", "inference", "worker", "client"}
MAY_IMPORT = {
    "osora_core": set(),
    "registry": set(),
    "api": {"registry"},
    "inference": {"osora_core"},
    "worker": {"registry", "osora_core"},
    "client": set(),
}
TORCH_FREE = ("api", "registry", "client")


def sources(package: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        yield path, ast.parse(path.read_text())


def imported(tree: ast.Module) -> Iterator[str]:
    """Top-level names of everything that is imported anywhere in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("package", sorted(OURS))
def test_packages_import_only_what_the_architecture_allows(package: str) -> None:
    allowed = MAY_IMPORT[package] | {package}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, tree in sources(package)
        for name in imported(tree)
        if name in OURS - allowed
    ]
    assert wrong == []


@pytest.mark.parametrize("package", TORCH_FREE)
def test_only_engines_need_torch(package: str) -> None:
    heavy = {"torch", "transformers", "peft"}
    assert [str(path) for path, tree in sources(package) if heavy & set(imported(tree))] == []


@pytest.mark.parametrize("package", sorted(OURS))
def test_nothing_unpickles_or_runs_code_of_a_model(package: str) -> None:
    for path, tree in sources(package):
        assert not {"pickle", "dill", "joblib"} & set(imported(tree)), path
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is False, path
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) != ("torch", "load"), path
