"""The `OSORA_CONSOLE_*` settings."""

import os
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def _is_origin(value: str) -> str | None:
    if not value:  # as containers have it where nothing was said
        return None
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path not in ("", "/"):
        raise ValueError(f"{value!r} is no address like https://console.example.org")
    return f"{parts.scheme}://{parts.netloc}".lower()


class ConsoleSettings(BaseSettings):
    """What the console needs to know. The API's own limits hold for whoever is signed in."""

    model_config = SettingsConfigDict(
        env_prefix="OSORA_CONSOLE_", frozen=True, extra="ignore", use_attribute_docstrings=True
    )

    host: str = "127.0.0.1"
    """Where the console listens."""
    port: int = Field(default=8010, ge=0, le=65535)
    """The console's port."""
    api_url: str = Field(default_factory=lambda: os.environ.get("OSORA_URL", ""))
    """The API that the console talks to. By default the running `osora serve`, else `http://127.0.0.1:8000`."""
    public_url: Annotated[str | None, BeforeValidator(_is_origin)] = None
    """How browsers reach the console, where a proxy stands before it: `https://console.example.org`. With https its
    cookie travels over TLS alone."""
    idle_minutes: float = Field(default=60, gt=0)
    """So long after the last thing that somebody did, they are signed out, and their key is forgotten."""
    log_level: str = "WARNING"
    """How much the console logs."""
