"""The container files name only what exists. They are parsed, not run: no container engine is needed."""

import importlib.util
import json
import re
import shlex
import shutil
import stat
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_settings import BaseSettings

import console.settings
import inference.settings
import registry.settings
from registry.settings import Settings

ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "docker-compose.yml"
GPU = ROOT / "docker" / "docker-compose.gpu.yml"
TLS = ROOT / "docker" / "docker-compose.tls.yml"
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
OURS = ("api", "inference", "worker", "migrate", "console")


class _Loader(yaml.SafeLoader):
    """Knows the one tag of compose's own that is used here."""


_Loader.add_constructor("!reset", lambda loader, node: None)


def services(path: Path = COMPOSE) -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.load(path.read_text(), _Loader)["services"]
    return parsed


def setting_names() -> set[str]:
    """Every variable that the registry's or the inference server's settings read."""
    names = set()
    for module in (registry.settings, inference.settings, console.settings):
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


@pytest.mark.parametrize("path", [COMPOSE, GPU, TLS, ROOT / "docker" / "Dockerfile"], ids=lambda path: path.name)
def test_every_variable_is_a_setting(path: Path) -> None:
    named = set(re.findall(r"OSORA_[A-Z_]+", path.read_text()))
    assert named - {"OSORA_API_KEY", "OSORA_DOMAIN", "OSORA_API", "OSORA_SUBNET"} <= setting_names()  # others' own


def secrets(folder: Path) -> dict[str, str]:
    """What `make-env.sh` writes."""
    file = folder / ".env"
    subprocess.run([ROOT / "docker" / "make-env.sh", file], check=True)
    return dict(line.split("=", 1) for line in file.read_text().splitlines())


def test_the_settings_are_accepted_with_secrets_that_are_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = secrets(tmp_path)
    for name, value in services()["api"]["environment"].items():
        value = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: made[found[1]], value)
        monkeypatch.setenv(name, re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value))
    settings = Settings(data_dir=tmp_path)
    assert settings.object_store_options["access_key_id"].get_secret_value() == "osora"
    assert settings.inference_url_list == ["http://inference:8100"]


def test_no_secret_has_a_default_and_none_is_made_twice(tmp_path: Path) -> None:
    named = set(re.findall(r"\$\{(\w+(?:PASSWORD|KEY|TOKEN))\b(.*?)\}", COMPOSE.read_text()))
    (tmp_path / ".env").write_text("OSORA_PORT=9000\n")
    made = secrets(tmp_path)
    assert {name for name, _ in named} == made.keys() - {"OSORA_PORT"}
    assert all(rest.startswith(":?") for _, rest in named)  # compose refuses to start without it
    assert len(set(made.values())) == len(made)
    assert secrets(tmp_path) == made
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert ".env" in (ROOT / ".gitignore").read_text().split()  # and is committed by nobody


def test_a_last_line_without_an_end_stays_a_line_of_its_own(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OSORA_PORT=9000")
    made = secrets(tmp_path)
    assert made["OSORA_PORT"] == "9000"
    assert len(made["POSTGRES_PASSWORD"]) == 48


def test_the_bucket_is_made_twice_with_no_more_than_the_stores_image_has(tmp_path: Path) -> None:
    programs, attached = tmp_path / "bin", tmp_path / "attached"
    programs.mkdir()
    for name in ("sh", "cat"):
        (programs / name).symlink_to(str(shutil.which(name)))
    (programs / "mc").write_text(
        f"""#!/bin/sh
        case "$*" in
            *"policy entities"*) if [ -e {attached} ]; then echo "Policies: bucket"; fi ;;
            *"policy attach"*) [ ! -e {attached} ] || exit 1; : > {attached} ;;
        esac
        """
    )
    (programs / "mc").chmod(0o700)
    script = (ROOT / "docker" / "make-bucket.sh").read_text().replace("/tmp/", f"{tmp_path}/")
    for _ in range(2):
        environment = {"PATH": str(programs), "S3_PASSWORD": "a-secret-of-this-test"}
        done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert attached.exists()


def test_kernels_can_be_compiled_and_kept_where_the_rest_of_the_image_cannot_be_written() -> None:
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    assert re.search(r"apt-get install .*\bgcc\b", last)  # Triton compiles its launchers
    kept = re.findall(r"\b(?:TRITON_CACHE_DIR|HF_HOME)=(\S+)", last)
    assert len(kept) == 2
    assert all(place.startswith("/data/") for place in kept)  # what is in /tmp cannot be run


def test_the_server_secret_is_rotated_in_the_file_of_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fallbacks = services()["worker"]["environment"]["OSORA_SECRET_KEY_FALLBACKS"]
    assert fallbacks == "${OSORA_SECRET_KEY_FALLBACKS:-[]}"
    monkeypatch.setenv("OSORA_SECRET_KEY_FALLBACKS", "[]")
    assert Settings(data_dir=tmp_path).secret_key_fallbacks == ()


def test_our_containers_have_no_rights_and_the_stores_no_way_out() -> None:
    for name in OURS:
        service = services()[name]
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    assert yaml.safe_load(COMPOSE.read_text())["networks"]["stores"] == {"internal": True}
    for name in set(services()) - set(OURS):
        assert services()[name]["networks"] == ["stores"], name
    assert [name for name, service in services().items() if "ports" in service] == ["api", "console"]
    assert all(port.startswith("127.0.0.1:") for port in services()["console"]["ports"])  # it speaks plain HTTP
    assert set(services()["console"]["environment"]) == {
        "OSORA_CONSOLE_HOST", "OSORA_CONSOLE_API_URL", "OSORA_CONSOLE_PUBLIC_URL",
    }  # fmt: skip
    assert (services()["console"]["networks"], services()["console"]["volumes"]) == (["programs"], [])
    assert services(TLS)["api"]["ports"] is None  # and behind the proxy not even that one


def test_services_and_volumes_that_are_referred_to_are_there() -> None:
    volumes = yaml.safe_load(COMPOSE.read_text())["volumes"]
    for service in services().values():
        assert set(service.get("depends_on", {})) <= set(services())
        for source in (volume.partition(":")[0] for volume in service.get("volumes", [])):
            assert source in volumes or (ROOT / source).is_file(), source
        assert {"command", "entrypoint", "image"} & set(service)
    assert set(services(GPU)) <= set(services())


def test_hosts_in_urls_are_services() -> None:
    environment = json.dumps([service.get("environment", {}) for service in services().values()])
    hosts = re.findall(r"(?<=@|/)([a-z]+)(?=:\d|/osora)", re.sub(r"//[^/]*@", "//", environment))
    assert {"postgres", "redis", "objects", "inference", "api"} == set(hosts)


def locked(name: str) -> dict[str, str]:
    """Package to its version and hashes."""
    text = (ROOT / "docker" / f"{name}.lock").read_text()
    return {found[1]: found[2] for found in re.finditer(r"^([a-z0-9-]+)==(\S+(?: \\\n +--hash=\S+)+)$", text, re.M)}


def test_every_package_of_the_image_is_the_one_that_was_tested() -> None:
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    )
    requirements, torch = locked("requirements"), locked("torch")
    in_image = requirements | torch
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["server"]]
    names = {re.split(r"[\[>=<;]", requirement)[0] for requirement in wanted} - {"osora"} | {"nicegui"}
    assert names <= in_image.keys()
    assert {name: in_image[name].split()[0] for name in in_image.keys() & pins.keys()} == {
        name: pins[name] for name in in_image.keys() & pins.keys()
    }
    for name in ("requirements", "torch", "build"):
        lines = (ROOT / "docker" / f"{name}.lock").read_text().splitlines()
        assert len(locked(name)) == sum("==" in line for line in lines)  # none is without a hash
    installs = re.findall(r"pip install (\S+)", " ".join(instructions("RUN")))
    assert set(installs) == {"--no-deps"}  # nothing comes along that is not named


def test_the_image_contains_every_package_and_does_not_run_as_root() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    copied = {source for line in instructions("COPY") for source in shlex.split(line)[:-1] if line[0] != "-"}
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= copied
    assert all((ROOT / source).exists() for source in copied)
    shown = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert all(any(fnmatch(source, pattern) for pattern in shown) for source in copied)
    assert instructions("USER") == ["osora"]
    assert "HEALTHCHECK" in DOCKERFILE
