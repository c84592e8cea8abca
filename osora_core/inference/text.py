"""Tokens to text as they come, with stop strings."""

from collections.abc import Sequence

from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerBase


class TextStream:
    """Incremental text of one generation. Text that may turn out to begin a stop string is held back."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._held = ""
        self._decoded = ""

    def push(self, token: int) -> tuple[str, bool]:
        """Add a token; returns the text now certain, and whether a stop string ended the generation."""
        self._ids.append(token)
        piece = self._stream.step(self._backend, token) or ""
        self._decoded += piece
        if not self._stop:
            return piece, False
        self._held += piece
        ends = [at for at in (self._held.find(stop) for stop in self._stop) if at >= 0]
        if ends:
            text, self._held = self._held[: min(ends)], ""
            return text, True
        keep = max((_overlap(self._held, stop) for stop in self._stop), default=0)
        text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return text, False

    def flush(self) -> str:
        """What is left at the end: text held back, and a character whose last bytes never came."""
        whole: str = self._backend.decode(self._ids, skip_special_tokens=True)
        rest = whole[len(self._decoded) :]
        text, self._held = self._held + rest, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`, shorter than stop itself."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
