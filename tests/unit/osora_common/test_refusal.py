"""A program that is told what cannot be done says so in one sentence and ends with a status of its own."""

import os
from typing import Literal

import pytest
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from osora_common.refusal import refusing


class Example(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="OSORA_", extra="ignore")

    device: Literal["cpu", "cuda"] = "cpu"
    port: int = 8000
    database_url: int = 0
    store_options: dict[str, SecretStr] = Field(default_factory=dict)
    bases: str = "a"

    @field_validator("bases")
    @classmethod
    def _named(cls, value: str) -> str:
        if not value:
            raise ValueError("'' must list at least one base")
        return value


class NotHereError(Exception):
    next_action = "look elsewhere"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DEVICE", "tpu", "OSORA_DEVICE is 'tpu': it should be 'cpu' or 'cuda'.\n"),
        ("PORT", "x", "OSORA_PORT is 'x': it should be a valid integer, unable to parse string as an integer.\n"),
        ("DATABASE_URL", "pg://u:secret@h", None),
        ("STORE_OPTIONS", "{secret", "OSORA_STORE_OPTIONS is not JSON.\n"),
        ("BASES", "", "OSORA_BASES: '' must list at least one base.\n"),
    ],
)
def test_a_setting_that_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, said: str | None
) -> None:
    monkeypatch.setenv(f"OSORA_{name}", value)
    with pytest.raises(SystemExit) as ended, refusing():
        Example()
    assert ended.value.code == os.EX_CONFIG
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert name.lower() in told.lower()
    assert "secret" not in told
    assert said in (None, told)


def test_an_error_of_the_programs_own_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), refusing(NotHereError):
        raise NotHereError("it is\nnot here")
    assert capsys.readouterr().err == "it is not here. Next: look elsewhere.\n"
    with pytest.raises(ZeroDivisionError), refusing(NotHereError):
        raise ZeroDivisionError
