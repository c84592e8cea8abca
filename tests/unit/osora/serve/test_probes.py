"""What a log tells the supervisor."""

from pathlib import Path

from osora.serve.probes import logged


def test_a_word_is_found_once_however_it_comes(tmp_path: Path) -> None:
    """A program that was started again logs to the same file, and is ready when it says so itself."""
    log = tmp_path / "worker.log"
    is_ready = logged(log, "ready")
    said = []
    for piece in (None, "already\nworker rea", "dy", "\n", "worker ", "ready\n", "and more\n"):
        if piece is not None:
            with log.open("a") as file:
                file.write(piece)
        said.append(is_ready())
    assert said == [False, False, True, False, False, True, False]
