"""Tokens to text as they come, with stop strings."""

from collections.abc import Sequence

from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerBase

from osora_core.data.decoding import Continuation


class TextStream:
    """Incremental text of one generation, which goes on after `prompt`. Text that may turn out to begin a stop string
    is held back."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], stop: Sequence[str]) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._continuation = Continuation(tokenizer, prompt)
        self._stream = DecodeStream(self._continuation.context, skip_special_tokens=True)
        self._searches = [_Search(text) for text in stop]
        self._ids: list[int] = []
        self._held = ""
        self._decoded = ""

    def push(self, token: int) -> tuple[str, bool]:
        """Add a token; returns the text now certain, and whether a stop string ended the generation."""
        self._ids.append(token)
        piece = self._stream.step(self._backend, token) or ""
        self._decoded += piece
        if not self._searches:
            return piece, False
        begins = [begin for search in self._searches if (begin := search.push(piece)) is not None]
        if begins:
            text = (self._held + piece)[: len(self._held) + min(begins)]
            self._held = ""
            return text, True
        self._held += piece
        certain = len(self._held) - max(search.matched for search in self._searches)
        text, self._held = self._held[:certain], self._held[certain:]
        return text, False

    def flush(self) -> str:
        """What is left at the end: text held back, and a character whose last bytes never came."""
        rest = self._continuation.text(self._ids)[len(self._decoded) :]
        text, self._held = self._held + rest, ""
        return text


class _Search:
    """Knuth, Morris and Pratt's search (SIAM J. Comput. 6, 1977) for one string in text that comes piece by piece.

    A character costs the same whatever came before it. `matched`: so many characters of the string are the end of the
    text so far.
    """

    def __init__(self, sought: str) -> None:
        self._sought = sought
        # By length of a beginning of the string: its longest end that begins the string too. As far as was needed.
        self._borders = [0, 0]
        self.matched = 0

    def push(self, piece: str) -> int | None:
        """Where the string begins, counted from the piece's start (before it: below 0), once it is whole."""
        sought = self._sought
        if self.matched == 0 and sought[0] not in piece:
            return None
        for end, character in enumerate(piece, 1):
            self.matched = self._longest(self.matched, character)
            if self.matched == len(sought):
                return end - len(sought)
            if self.matched == len(self._borders):
                self._borders.append(self._longest(self._borders[-1], character))
        return None

    def _longest(self, matched: int, character: str) -> int:
        """So many characters of the string are matched once `character` has followed `matched` of them."""
        while matched and self._sought[matched] != character:
            matched = self._borders[matched]
        return matched + (self._sought[matched] == character)
