"""The container files name only what exists. They are parsed, not run: no container engine is needed."""

import importlib.util
import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_settings import BaseSettings

import inference.settings
import registry.settings
from registry.settings import Settings

ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "docker-compose.yml"
GPU = ROOT / "docker" / "docker-compose.gpu.yml"
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
OURS = ("api", "inference", "worker", "migrate")


def services(path: Path = COMPOSE) -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load(path.read_text())["services"]
    return parsed


def setting_names() -> set[str]:
    """Every variable that the registry's or the inference server's settings read."""
    names = set()
    for module in (registry.settings, inference.settings):
        for model in vars(module).values():
            if isinstance(model, type) and issubclass(model, BaseSettings):
                prefix = model.model_config.get("env_prefix", "")
                for name, field in model.model_fields.items():
                    alias = field.validation_alias
                    names.add(alias if isinstance(alias, str) else f"{prefix}{name.upper()}")
    return names


def instructions(word: str) -> list[str]:
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line.removeprefix(word).strip() for line in joined.splitlines() if line.startswith(f"{word} ")]


@pytest.mark.parametrize("name", OURS)
def test_a_services_command_exists(name: str) -> None:
    python, flag, module, *rest = services()[name]["command"]
    assert (python, flag) == ("python", "-m")
    assert importlib.util.find_spec(f"{module}.__main__"), f"python -m {module} does not exist"
    if rest:
        assert rest == ["init"]


def test_the_images_own_command_exists() -> None:
    (command,) = instructions("CMD")
    python, flag, module = json.loads(command)
    assert (python, flag) == ("python", "-m")
    assert importlib.util.find_spec(f"{module}.__main__")
    assert any("PYTHONSAFEPATH=1" in line for line in instructions("ENV"))


@pytest.mark.parametrize("path", [COMPOSE, GPU, ROOT / "docker" / "Dockerfile"], ids=lambda path: path.name)
def test_every_variable_is_a_setting(path: Path) -> None:
    named = set(re.findall(r"OSORA_[A-Z_]+", path.read_text()))
    assert named - {"OSORA_API_KEY"} <= setting_names()  # that one is the client's


def test_the_settings_are_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in services()["api"]["environment"].items():
        monkeypatch.setenv(name, re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value))
    settings = Settings(data_dir=tmp_path)
    assert settings.object_store_options["access_key_id"].get_secret_value() == "osora"
    assert settings.inference_url_list == ["http://inference:8100"]


def test_services_and_volumes_that_are_referred_to_are_there() -> None:
    volumes = yaml.safe_load(COMPOSE.read_text())["volumes"]
    for service in services().values():
        assert set(service.get("depends_on", {})) <= set(services())
        assert {volume.partition(":")[0] for volume in service.get("volumes", [])} <= set(volumes)
        assert {"command", "entrypoint", "image"} & set(service)
    assert set(services(GPU)) <= set(services())


def test_hosts_in_urls_are_services() -> None:
    environment = json.dumps([service.get("environment", {}) for service in services().values()])
    hosts = re.findall(r"//(?:[^@/\s\"]*@)?([a-z]+)(?=[:/])", environment)
    assert {"postgres", "redis", "objects", "inference"} == set(hosts)


def test_the_image_contains_every_package_and_does_not_run_as_root() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    copied = {source for line in instructions("COPY") for source in shlex.split(line)[:-1]}
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= copied
    assert all((ROOT / source).exists() for source in copied)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{source}" for source in copied} <= set(ignored)
    assert instructions("USER") == ["osora"]
    assert "HEALTHCHECK" in DOCKERFILE
