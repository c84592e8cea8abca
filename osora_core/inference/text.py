"""Tokens to text as they come, with stop strings."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerBase

from osora_core.data.decoding import Continuation


class TextStream:
    """Incremental text of one generation, which goes on after `prompt`. Text that may turn out to begin a stop string
    is held back."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt: Sequence[int],
        stop: Sequence[str],
        shown: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        """`shown`: what stands in the text for control tokens, which it otherwise leaves out."""
        self._tokenizer = tokenizer
        self._shown = shown
        self._searches = [Search(text) for text in stop]
        self._held = ""
        self._begin(prompt)

    def _begin(self, before: Sequence[int]) -> None:
        self._before = before
        self._continuation = Continuation(self._tokenizer, before)
        self._stream = DecodeStream(self._continuation.context, skip_special_tokens=True)
        self._ids: list[int] = []
        self._decoded = ""

    def push(self, token: int) -> tuple[str, str | None]:
        """Add a token; returns the text now certain, and the stop string that ended the generation, if one has."""
        piece = self._text_of(token)
        if not self._searches:
            return piece, None
        found = [(begin, search.sought) for search in self._searches if (begin := search.push(piece)) is not None]
        if found:
            begin, stop = min(found)
            text = (self._held + piece)[: len(self._held) + begin]
            self._held = ""
            return text, stop
        self._held += piece
        certain = len(self._held) - max(search.matched for search in self._searches)
        text, self._held = self._held[:certain], self._held[certain:]
        return text, None

    def flush(self) -> str:
        """What is left at the end: text held back, and a character whose last bytes never came."""
        text, self._held = self._held + self._rest(), ""
        return text

    def _text_of(self, token: int) -> str:
        if token in self._shown:
            piece = self._rest() + self._shown[token]
            self._begin([*self._before, *self._ids, token])
            return piece
        self._ids.append(token)
        try:
            piece = self._stream.step(self._tokenizer.backend_tokenizer, token) or ""
        except Exception as error:  # it has no type of its own
            if "Invalid prefix" not in str(error):
                raise
            # Bytes that were a character by themselves are none with those that came behind them.
            piece = self._rest()
            self._begin([*self._before, *self._ids])
            return piece
        self._decoded += piece
        return piece

    def _rest(self) -> str:
        return self._continuation.text(self._ids)[len(self._decoded) :]


class Search:
    """Knuth, Morris and Pratt's search (SIAM J. Comput. 6, 1977) for one string in text that comes piece by piece.

    A character costs the same whatever came before it. `matched`: so many characters of the string are the end of the
    text so far.
    """

    def __init__(self, sought: str) -> None:
        self.sought = sought
        # By length of a beginning of the string: its longest end that begins the string too. As far as was needed.
        self._borders = [0, 0]
        self.matched = 0

    def push(self, piece: str) -> int | None:
        """Where the string begins, counted from the piece's start (before it: below 0), once it is whole."""
        sought = self.sought
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
        while matched and self.sought[matched] != character:
            matched = self._borders[matched]
        return matched + (self.sought[matched] == character)
