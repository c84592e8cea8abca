"""The arrows between our packages, and what none of them may do. Read from the source, nothing is imported."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Package to those of ours that it may import.
ARROWS = {
    "api": {"registry", "osora_common", "osora_data"},
    "worker": {"registry", "osora_core", "osora_common", "osora_data"},
    "inference": {"osora_core", "osora_common"},
    "osora": {"osora_common", "osora_data"},
    "console": {"osora"},
    "registry": {"migrations", "osora_common", "osora_data"},  # it finds the scripts that Alembic runs
    "osora_core": {"osora_common", "osora_data"},
    "osora_data": {"osora_common"},
    "osora_common": set(),
    "migrations": {"registry"},
}
ENGINES = {"torch", "transformers", "peft", "safetensors", "tokenizers"}
SERVICES = {"fastapi", "starlette", "uvicorn", "httpx", "celery", "kombu", "redis", "sqlalchemy", "alembic", "obstore"}
FOREIGN = {
    "api": ENGINES,
    "registry": ENGINES | {"fastapi"},
    "osora": ENGINES,
    "console": ENGINES | SERVICES - {"fastapi", "starlette", "uvicorn", "httpx"},
    "osora_common": ENGINES,
    "osora_data": ENGINES | SERVICES,
    "osora_core": SERVICES,
}
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# What turns data into code, or a text into a command.
EXECUTORS = {
    *("eval", "exec", "builtins.eval", "builtins.exec"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all"),
    *("torch.load", "torch.save", "torch.hub.load", "numpy.load", "np.load"),
}
# What each of these may be set to.
SWITCHES = {
    "trust_remote_code": "False",
    "allow_pickle": "False",
    "shell": "False",
    "verify": "verify",  # a TLS context that was handed on
    "check_hostname": "True",
    "weights_only": "True",
}


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
        wrong |= {f"{path.name}:{line} {what}" for line, what in executed(tree(path))}
    assert wrong == set()


def executed(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Where data become code or commands, or a certificate is not looked at, with what does it."""
    for node in ast.walk(module):
        if isinstance(node, (ast.Attribute, ast.Name)) and ast.unparse(node) in EXECUTORS:
            yield node.lineno, ast.unparse(node)
        if isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from ((node.lineno, name) for name in sorted(names & EXECUTORS))
        if isinstance(node, ast.keyword) and node.arg in SWITCHES:
            value = ast.unparse(node.value)
            if value != SWITCHES[node.arg]:
                yield node.value.lineno, f"{node.arg}={value}"
        if isinstance(node, ast.Attribute) and node.attr in ("CERT_NONE", "_create_unverified_context"):
            yield node.lineno, ast.unparse(node)


@pytest.mark.parametrize(
    "source",
    [
        "eval(x)",
        "torch.load(path)",
        "from torch import load",
        "yaml.load(text, Loader=yaml.Loader)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=flag)",
        "subprocess.run(x, shell=True)",
        "httpx.get(x, verify=False)",
        "context.verify_mode = ssl.CERT_NONE",
        "load = eval",
    ],
)
def test_what_executes_is_seen(source: str) -> None:
    assert [*executed(ast.parse(source))]


def test_what_does_not_is_not() -> None:
    harmless = "re.compile(x); grammar.compile(x); yaml.safe_load(x); run(x, shell=False); client(verify=verify)"
    assert [*executed(ast.parse(harmless))] == []


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


def names(package: str) -> dict[str, Path]:
    """The modules of a package by their full names; a folder's is that of its __init__."""
    parts = {path: path.relative_to(ROOT).with_suffix("").parts for path in modules(package)}
    return {".".join(part[:-1] if part[-1] == "__init__" else part): path for path, part in parts.items()}


def imported_modules(importer: str, path: Path, known: Iterable[str]) -> set[str]:
    """Which of the `known` modules one imports, wherever in it: inside functions and for type checkers too.

    Those are circles as well: they hold only as long as nobody moves them to the top, and a reader who follows the
    arrows goes round all the same. Importing a module runs the folders above it first, but for those that the
    importer itself is in.
    """
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= members & {*known}
            # `from package import module` is about the module, `from package import name` about the package.
            found |= {node.module} if members - {*known} else set()
    folders = {".".join(name.split(".")[:depth]) for name in found for depth in range(1, name.count(".") + 1)}
    found |= {folder for folder in folders if not importer.startswith(f"{folder}.") and folder != importer}
    return found & {*known} - {importer}


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """Modules each of which imports the next, and the last the first; empty if there are none."""
    done: set[str] = set()

    def search(trail: list[str]) -> list[str]:
        for target in sorted(arrows[trail[-1]] - done):
            if target in trail:
                return [*trail[trail.index(target) :], target]
            if found := search([*trail, target]):
                return found
        done.add(trail[-1])
        return []

    return next((found for start in sorted(arrows) if start not in done and (found := search([start]))), [])


@pytest.mark.parametrize("package", ARROWS)
def test_no_modules_of_a_package_import_each_other_in_a_circle(package: str) -> None:
    known = names(package)
    found = circle({name: imported_modules(name, path, known) for name, path in known.items()})
    assert not found, " -> ".join(found)


def test_circles_are_found_however_they_are_closed(tmp_path: Path) -> None:
    sources = {
        "p": "",
        "p.a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.b import B",
        "p.b": "def f():\n    import p.q.c",
        "p.q": "from p.a import A",
        "p.q.c": "",
        "p.q.d": "from p.q import c\nimport p",
    }
    for name, source in sources.items():
        (tmp_path / name).write_text(source)
    arrows = {name: imported_modules(name, tmp_path / name, sources) for name in sources}
    assert arrows["p.q.d"] == {"p", "p.q.c"}
    assert circle(arrows) == ["p.a", "p.b", "p.q", "p.a"]
    assert circle(arrows | {"p.b": {"p.q.c"}}) == []


@pytest.mark.parametrize("package", ARROWS)
def test_no_module_is_over_400_lines(package: str) -> None:
    long = {str(path.relative_to(ROOT)): n for path in modules(package) if (n := path.read_text().count("\n")) > 400}
    assert long == {}


def test_unit_tests_mirror_the_packages() -> None:
    """What tests a module of a folder is in the folder of the same path below tests/unit."""
    unit = ROOT / "tests" / "unit"
    folders = {path.parent.relative_to(unit) for path in unit.rglob("test_*.py")}
    assert len(folders) > 10
    assert {str(folder) for folder in folders if not (ROOT / folder).is_dir()} == set()
