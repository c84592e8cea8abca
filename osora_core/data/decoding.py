"""Token ids back to text, as they read where they stand."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from osora_core.data.conversation import conversations_of

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
_CONTEXTS = (8, 64)


class Continuation:
    """Text that goes on after other tokens. Some tokenizers (Llama 2's and its kin) drop the space that a text begins
    with, so that by themselves the tokens of ` yes` and of `yes` read alike.

    `context` are the last tokens of what came before, so many as spell something; none, where what follows is encoded
    as the beginning of a text (see `osora_core.data.encoding`) and reads as one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, before: Sequence[int]) -> None:
        self._backend = tokenizer.backend_tokenizer
        self.context: list[int] = []
        self._prefix = ""
        if before and conversations_of(tokenizer).encoding.starts_anew_after(before[-1]):
            return
        for size in (*_CONTEXTS, len(before)):
            context = list(before[-size:]) if size else []
            prefix = self._decode(context)
            # What seems to end within a character would be taken for a part of what follows.
            if prefix and not prefix.endswith(_UNFINISHED):
                self.context, self._prefix = context, prefix
                return
        # A blank that is dropped where a text begins spells nothing, and the next one does.
        if before and not self._decode(before) and self._decode([*before, *before]):
            self.context = list(before)

    def text(self, ids: Sequence[int]) -> str:
        """The text of ids that follow, control tokens left out."""
        whole = self._decode([*self.context, *ids])
        return whole[len(self._prefix) :]

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._backend.decode(list(ids), skip_special_tokens=True)
        return text
