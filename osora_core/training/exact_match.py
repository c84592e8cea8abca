"""Which rows a real request would get right: greedy decoding from the prompt, up to its end of turn.

Reading a row with its answer (teacher forcing) decides almost all of them. Where every token of an answer is the
likeliest at its place, greedy decoding gives that answer; where the first that is not has a likelier token that spells
other text, it gives another one. What is left is a likelier token that spells the same text otherwise. Greedy decoding
goes on after it, so the row is read again with that token and the rest of the answer encoded after it, until it is
decided. Every reading settles one more token at least.
"""

from collections.abc import Sequence
from itertools import repeat

from osora_core.data import Example, Renderer
from osora_core.data.conversation import conversations_of
from osora_core.data.decoding import Continuation
from osora_core.training.passes import Passes, Scores

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


def exact_matches(rows: Sequence[Example], scores: Scores, slot: int, passes: Passes) -> list[bool]:
    """For each row whether all of its answers are what `slot` says; scores: those of the rows, one a row."""
    judge = _Judge(passes)
    exact = [judge.ends(row) for row in rows]
    asked = list(zip(range(len(rows)), rows, repeat(0)))
    while asked:
        following = []
        for place, (index, row, settled) in enumerate(asked):
            mistake = scores.first_mistake(place)
            if mistake is None or not exact[index]:
                continue
            rest = judge.after(row, *mistake) if mistake[0] >= settled else None
            exact[index] = rest is not None
            following += [(index, *reading) for reading in rest or ()]
        asked = [reading for reading in following if exact[reading[0]]]
        if asked:
            scores = passes.scores([(row, place) for place, (_, row, _) in enumerate(asked)], [slot] * len(asked))
    return exact


class _Judge:
    def __init__(self, passes: Passes) -> None:
        self._runtime = passes.runtime
        self._renderer = Renderer(passes.runtime.tokenizer, passes.runtime.max_length)
        controls = conversations_of(passes.runtime.tokenizer).encoding.controls
        self._controls = frozenset(control.id for control in controls.values())

    def ends(self, row: Example) -> bool:
        """Whether a request that is answered like the row ends where the row's answers do."""
        stops = self._runtime.eos_ids
        return all(
            row.tokens[end - 1] in stops and stops.isdisjoint(row.tokens[begin : end - 1]) for begin, end in row.answers
        )

    def after(self, row: Example, place: int, token: int) -> list[tuple[Example, int]] | None:
        """What to read next if `token` is the likeliest at `place`, each with the place that is not settled yet.

        None if the answer is wrong with that token.
        """
        begin, end = next(answer for answer in row.answers if answer[0] <= place < answer[1])
        if not self._controls.isdisjoint(row.tokens[place : end - 1]):
            return None  # no other token says what one that marks a call does
        said = (*row.tokens[begin:place], token)
        decoder = Continuation(self._runtime.tokenizer, row.tokens[:begin])
        text, part = decoder.text(row.tokens[begin:end]), decoder.text(said)
        readings = []
        if token in self._runtime.eos_ids:
            if part != text:
                return None
        else:
            # A token may end within a character, and what then follows it is not yet text.
            if not text.startswith(part.rstrip(_UNFINISHED)):
                return None
            rest = self._renderer.continuation(text[len(part) :]) if text.startswith(part) else []
            tokens = (*row.tokens[:begin], *said, *rest, row.tokens[end - 1])
            if len(tokens) > self._runtime.max_length:
                return None
            mask = (False,) * begin + (True,) * (len(tokens) - begin)
            readings.append((Example(tokens, mask, row.line), place + 1))
        if any(row.mask[end:]):
            later = Example(row.tokens, (False,) * end + row.mask[end:], row.line)
            readings.append((later, end))
        return readings
