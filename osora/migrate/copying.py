"""Files of the other service, copied here once."""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from osora.errors import OpenAIError, OsoraAPIError
from osora.migrate.openai_api import OpenAIClient
from osora.migrate.plan import NotImportedError
from osora.sdk import Osora

_CHUNK_BYTES = 1024 * 1024
# Answers to an upload that are about this file; any other ends the whole import.
_REFUSED = (400, 409, 413, 422)


class FileCopies:
    """Copies training files, each once: what is here already, by its content, is not sent again.

    `tell` hears what was done, in sentences.
    """

    def __init__(self, source: OpenAIClient, osora: Osora, tell: Callable[[str], None]) -> None:
        self._source = source
        self._osora = osora
        self._tell = tell
        self._by_content: dict[str, str] | None = None
        self._copied: dict[str, str | NotImportedError] = {}

    def copy(self, file_id: str) -> str:
        """The id here of a file there. Raises `NotImportedError` where it cannot be read there, or is refused here."""
        if file_id not in self._copied:
            try:
                self._copied[file_id] = self._copy(file_id)
            except NotImportedError as refused:
                self._copied[file_id] = refused
        found = self._copied[file_id]
        if isinstance(found, NotImportedError):
            raise found
        return found

    def look(self, file_id: str) -> dict[str, object]:
        """What is known there of a file. Raises `NotImportedError` where it cannot be read."""
        try:
            return self._source.file(file_id)
        except OpenAIError as error:
            raise _unreadable(file_id, error) from error

    def _copy(self, file_id: str) -> str:
        known = self.look(file_id)
        size = known.get("bytes")
        with tempfile.TemporaryDirectory(prefix="osora-import-") as folder:
            path = Path(folder, _file_name(known.get("filename"), file_id))
            with path.open("w+b") as out:
                try:
                    self._source.download(file_id, out, size if isinstance(size, int) else None)
                except OpenAIError as error:
                    raise _unreadable(file_id, error) from error
                sha256 = _sha256(out)
            here = self._contents()
            if sha256 in here:
                self._tell(f"File {file_id} ({path.name}) is here already as {here[sha256]}")
            else:
                here[sha256] = self._upload(file_id, path)
                self._tell(f"File {file_id} ({path.name}) copied as {here[sha256]}")
        return here[sha256]

    def _upload(self, file_id: str, path: Path) -> str:
        try:
            return str(self._osora.files.upload(path)["id"])
        except OsoraAPIError as error:
            if error.status not in _REFUSED:
                raise
            line = f"line {error.line}: " if error.line and f"line {error.line}" not in error.message.lower() else ""
            reason = f"its file {file_id} ({path.name}) is refused here: {line}{error.message}"
            raise NotImportedError(reason, error.next_action, error.line) from error

    def _contents(self) -> dict[str, str]:
        """The training files here, by the hash of their content; those that will expire are left to do so."""
        if self._by_content is None:
            self._by_content = {}
            for file in self._osora.files.list(purpose="fine-tune"):
                if file.get("status", "processed") == "processed" and not file.get("expires_at"):
                    self._by_content[file["osora"]["sha256"]] = file["id"]
        return self._by_content


def _unreadable(file_id: str, error: OpenAIError) -> Exception:
    """What is to be raised: only this job is out, unless the whole account or service is."""
    if error.status in (None, 401):
        return error
    if error.status == 404:
        return NotImportedError(f"its file {file_id} is not there any more", "upload the file here and use osora train")
    return NotImportedError(f"its file {file_id} cannot be read: {error}", error.next_action)


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _file_name(given: object, file_id: str) -> str:
    """Their name for a file as one of a folder of ours."""
    name = "".join(letter for letter in str(given or "") if letter.isprintable() and letter not in '/\\:*?"<>|')
    return name.lstrip(".")[-80:] or f"{file_id.replace('/', '-')}.jsonl"
