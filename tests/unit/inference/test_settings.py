"""Settings of the inference server: the same names as the registry's, without a database."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_settings import BaseSettings

import registry.settings
from inference.authentication import require_token
from inference.settings import InferenceSettings
from osora_core.errors import UserError


def test_everything_defaults_to_the_data_directory(tmp_path: Path) -> None:
    settings = InferenceSettings(data_dir=tmp_path)
    assert settings.store_url == f"file://{tmp_path}/objects"
    assert settings.base_paths == {"osora-tiny": "osora-tiny"}
    assert not list(tmp_path.iterdir())


def test_a_store_in_the_database_needs_the_apis_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSORA_OBJECT_STORE", "db:")
    with pytest.raises(ValueError, match="OSORA_ARTIFACT_STORE"):
        _ = InferenceSettings().store_url
    monkeypatch.setenv("OSORA_ARTIFACT_STORE", "http://127.0.0.1:8000/internal/objects")
    assert InferenceSettings().store_url == "http://127.0.0.1:8000/internal/objects"


def test_the_token_is_the_setting_or_the_apis_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = InferenceSettings(data_dir=tmp_path)
    assert settings.token() is None  # the API has not started yet
    (tmp_path / "internal.token").write_text("from-file\n")
    assert settings.token() == "from-file"
    monkeypatch.setenv("OSORA_INTERNAL_TOKEN", "from-setting")
    assert InferenceSettings(data_dir=tmp_path).token() == "from-setting"
    assert "from-setting" not in repr(InferenceSettings(data_dir=tmp_path))


def test_no_other_machine_reaches_a_server_without_a_token(tmp_path: Path) -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        require_token(InferenceSettings(data_dir=tmp_path, inference_host=host))
    for host in ("0.0.0.0", "::", "10.0.0.7", "gpu.example"):
        with pytest.raises(UserError, match="there is no token"):
            require_token(InferenceSettings(data_dir=tmp_path, inference_host=host))
    (tmp_path / "internal.token").write_text("from-file\n")
    require_token(InferenceSettings(data_dir=tmp_path, inference_host="0.0.0.0"))


@pytest.mark.parametrize("settings", [InferenceSettings, registry.settings.Settings])
def test_a_level_that_no_logger_knows_is_refused(settings: type[BaseSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSORA_LOG_LEVEL", "debug")
    settings()
    monkeypatch.setenv("OSORA_LOG_LEVEL", "loud")
    with pytest.raises(ValidationError, match="'loud' is none of DEBUG, INFO, WARNING, ERROR"):
        settings()


def test_names_that_both_know_have_the_same_defaults(tmp_path: Path) -> None:
    mine, theirs = InferenceSettings(data_dir=tmp_path), registry.settings.Settings(data_dir=tmp_path)
    shared = InferenceSettings.model_fields.keys() & registry.settings.Settings.model_fields.keys()
    assert {"data_dir", "bases", "basis_rank", "device"} <= shared
    for name in shared - {"object_store"}:  # here None stands for the default
        assert getattr(mine, name) == getattr(theirs, name), name
    assert mine.store_url == theirs.object_store
    assert mine.token() is None
