"""Strings that must never be seen in a log, an event that others read, a queue or a list of processes."""

import logging
import re
from pathlib import Path
from typing import Any

from osora_common.log_records import told

_MARK = "9f2c77d1"

# Also every real key and signing secret, and what the shared fixtures train on.
PATTERN = re.compile(
    rf"canary-\w+-{_MARK}|osk-[A-Za-z0-9_-]{{30,}}|whsec_[A-Za-z0-9+/]{{30,}}|\b2\+2\?|Which city\?|Name a city\."
)


def canary(what: str) -> str:
    """A text for one of the places that a secret or a tenant's words may come in by."""
    return f"canary-{what}-{_MARK}"


def found_in(text: str) -> list[str]:
    """The canaries in a text, each with what stands before it."""
    return [text[max(0, match.start() - 200) : match.end()] for match in PATTERN.finditer(text)]


def found_in_logs(folder: Path) -> dict[str, list[str]]:
    """Those in the logs below a folder, by file."""
    texts = {str(path): path.read_text(errors="replace") for path in folder.rglob("*log*") if path.is_file()}
    return {path: found for path, text in texts.items() if (found := found_in(text))}


class Watch:
    """Reads every log record that is made in this process, whichever logger makes it and whoever handles it."""

    def __init__(self) -> None:
        self.found: list[str] = []
        make = logging.getLogRecordFactory()

        def make_watched(*args: Any, **kwargs: Any) -> logging.LogRecord:
            record = make(*args, **kwargs)
            self._read(record)
            return record

        logging.setLogRecordFactory(make_watched)

    def _read(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:
            return  # what cannot be formatted is not logged
        if record.exc_info and record.exc_info[1] is not None:
            text += told(record.exc_info[1])  # as our programs write it
        self.found += [f"{record.name}: {each}" for each in found_in(text)]
