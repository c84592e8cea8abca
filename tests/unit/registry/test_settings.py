"""Settings: defaults under the data directory, the environment, secrets made once."""

import stat
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from inference.settings import InferenceSettings
from osora_common.refusal import refusing
from registry.settings import Settings, get_settings
from tests.support.threads import in_parallel


def test_everything_defaults_to_the_data_directory(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    assert settings.database_url == f"sqlite:///{tmp_path}/osora.db"
    assert settings.broker_url == f"redis+socket://{tmp_path}/run/redis.sock"
    assert settings.object_store == f"file://{tmp_path}/objects"
    assert not list(tmp_path.iterdir())  # reading settings writes nothing


def test_reads_the_environment_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSORA_BASES", "tiny, big=/models/big,")
    monkeypatch.setenv("OSORA_INFERENCE_URLS", "http://a:1/ ,http://b:2")
    monkeypatch.setenv("OSORA_OBJECT_STORE_OPTIONS", '{"endpoint": "http://minio:9000", "secret_access_key": "s3cret"}')
    settings = get_settings()
    assert settings is get_settings()
    assert settings.base_paths == {"tiny": "tiny", "big": "/models/big"}
    assert settings.inference_url_list == ["http://a:1", "http://b:2"]
    assert settings.object_store_options["endpoint"].get_secret_value() == "http://minio:9000"
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize("bases", ["", " , ", "=path", "a,b,a"])
def test_refuses_bases_without_or_with_equal_names(bases: str) -> None:
    with pytest.raises(ValidationError, match="base"):
        Settings(bases=bases)


@pytest.mark.parametrize("kind", [Settings, InferenceSettings])
def test_a_data_directory_in_nobodys_home_is_refused(
    kind: type[Settings | InferenceSettings], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OSORA_DATA_DIR", "~nobody-of-this-name/osora")
    with pytest.raises(SystemExit), refusing():
        kind()
    said = capsys.readouterr().err
    assert said.startswith("OSORA_DATA_DIR: '~nobody-of-this-name/osora' begins in a home directory that is not there")


def test_retention_is_in_days_or_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (Settings().file_retention_days, Settings().checkpoint_retention_days) == (None, 7)
    monkeypatch.setenv("OSORA_FILE_RETENTION_DAYS", "0.5")
    monkeypatch.setenv("OSORA_CHECKPOINT_RETENTION_DAYS", "forever")
    assert (Settings().file_retention_days, Settings().checkpoint_retention_days) == (0.5, None)


@pytest.mark.parametrize("value", ["0", "-1", "never", "inf", ""])
def test_a_retention_that_could_be_meant_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("OSORA_FILE_RETENTION_DAYS", value)
    with pytest.raises(ValidationError, match="file_retention_days"):
        Settings()


@pytest.mark.parametrize(("lease", "heartbeat"), [(3, 10), (10, 10), (60, 60.5)])
def test_a_lease_that_ends_before_its_renewal_is_refused(lease: float, heartbeat: float) -> None:
    with pytest.raises(ValidationError, match=r"OSORA_LEASE_SECONDS \(\d+\) must be above OSORA_HEARTBEAT_SECONDS"):
        Settings(lease_seconds=lease, heartbeat_seconds=heartbeat)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("database_url", "mysql://u:hush@h/x", "'mysql' is not supported"),
        ("database_url", "hush", "no URL of a database"),
        ("database_url", "sqlite://", "cannot be shared by several processes"),
        ("database_url", "sqlite:///:memory:", "cannot be shared by several processes"),
        ("broker_url", "pigeon://hush", "'pigeon' is no kind of broker"),
        ("object_store", "nope://hush", "'nope' is no kind of object store"),
        ("object_store", "s3://", "'s3' is no kind of object store, or the rest of the URL is missing"),
        ("inference_urls", "here:8100", "'here:8100' is no URL of a server"),
        ("inference_urls", ",", "names no server"),
        ("lease_seconds", "inf", "finite"),
        ("signal_seconds", "1e9", "less than or equal to 86400"),
        ("basis_rank", "1000000", "less than or equal to 8192"),
    ],
)
def test_a_value_that_no_program_could_use_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(f"OSORA_{name.upper()}", value)
    with pytest.raises(SystemExit), refusing():
        Settings()
    told = capsys.readouterr().err
    assert told.startswith(f"OSORA_{name.upper()}")
    assert said in told
    assert told.count("\n") == 1
    assert "hush" not in told


def test_options_that_a_store_does_not_know_are_refused_without_their_values() -> None:
    with pytest.raises(ValidationError, match="Configuration key: 'foo' is not valid") as refused:
        Settings(object_store="s3://bucket", object_store_options={"foo": SecretStr("hush")})
    assert "hush" not in str(refused.value.errors()[0]["msg"])
    Settings(object_store="s3://bucket", object_store_options={"region": SecretStr("eu")})


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OSORA_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings().data_dir == tmp_path / ".osora"
    assert Settings().database_url == f"sqlite:///{tmp_path}/.osora/osora.db"


def test_secrets_are_made_once_and_private(tmp_path: Path) -> None:
    data_dir = tmp_path / "new"
    found: list[tuple[str, str]] = []

    def start(index: int) -> None:
        settings = Settings(data_dir=data_dir)
        found.append((settings.server_secrets.current, settings.internal_secret))

    in_parallel(8, start)
    assert len(found) == 8
    assert len(set(found)) == 1
    assert sorted(path.name for path in data_dir.iterdir()) == ["internal.token", "secret.key"]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in data_dir.iterdir())


def test_configured_secrets_make_no_files(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, secret_key=SecretStr("pepper"), internal_token=SecretStr("token"))
    assert (settings.server_secrets.current, settings.internal_secret) == ("pepper", "token")
    assert not list(tmp_path.iterdir())
