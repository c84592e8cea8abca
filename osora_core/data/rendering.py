"""Training rows and requests to tokens: the base's own chat template, and a loss mask over what the assistant says."""

from collections.abc import Iterable, Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

import osora_data
from osora_core.data.conversation import AmbiguousAnswerError, conversations_of
from osora_core.data.examples import Example, Preference
from osora_core.data.overlong import RowTooLongError
from osora_core.errors import DataError, UserError
from osora_core.tools.format import CallFormat
from osora_core.tools.messages import Messages, Tools


class Renderer:
    """Turns rows into examples of at most `max_length` tokens, and requests into the prompts that go before answers.

    The tokens before an answer in an example are those of the request that asks for it. `base_length` is what the base
    can read, where a job has lowered that limit. `truncates`: of a longer row its first `max_length` tokens are kept,
    as long as some of them are learned; what ends a text or a turn is not among them, and so is not learned there.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        *,
        base_length: int | None = None,
        truncates: bool = False,
    ) -> None:
        self.max_length = max_length
        self._base_length = base_length or max_length
        self._truncates = truncates
        self._conversations = conversations_of(tokenizer)
        self._encoding = self._conversations.encoding

    def render(self, row: Mapping[str, Any], line: int) -> Example:
        """A chat, a prompt with its completion, or a text, in `osora_data`'s canonical shape, as an example.

        Raises RowTooLongError if it is too long, or where it is cut nothing to learn is left; DataError naming the line
        if it has another shape, or nothing to train on.
        """
        if "messages" in row:
            tokens, mask = self._chat(row["messages"], row.get("tools"), line)
        elif "prompt" in row and "completion" in row:
            tokens, mask = self._completion(str(row["prompt"]), str(row["completion"]), line)
        elif "text" in row:
            tokens, mask = self._text(row["text"])
        else:
            raise DataError(
                "a row needs 'messages', 'prompt' and 'completion', or 'text'; found " + ", ".join(map(repr, row)),
                line=line,
            )
        self._check_length(len(tokens), line)
        limit = self.max_length
        kept = map(self._encoding.numbers.__getitem__, tokens[:limit])
        example = Example(tuple(kept), tuple(mask[:limit]), line, is_cut=len(tokens) > limit)
        if example.loss_tokens == 0 and example.is_cut and any(mask[1:]):
            raise self._too_long(len(tokens), line)
        if example.loss_tokens == 0:
            raise DataError("nothing to train on: no assistant text with weight 1", line=line, param="messages")
        return example

    def preference(self, row: Mapping[str, Any], line: int) -> Preference:
        """An `input`/`preferred_output`/`non_preferred_output` row as two examples; only the answers count.

        Both have one prompt. Raises RowTooLongError as `render` does, and where what is left of the answers is the
        same; DataError naming the line if the row has another shape, or an answer is empty.
        """
        missing = {"input", "preferred_output", "non_preferred_output"} - row.keys()
        if missing:
            raise DataError(
                f"a row of preferences needs {min(missing)!r}; found " + ", ".join(map(repr, row)),
                line=line,
                param=min(missing),
                next_action="write preference rows for the method dpo, or use the method supervised",
            )
        asked = [{**message, "weight": 0} for message in row["input"]["messages"]]
        chosen, rejected = (
            self.render({"messages": [*asked, *row[answer]], "tools": row["input"].get("tools")}, line)
            for answer in ("preferred_output", "non_preferred_output")
        )
        pair = Preference(chosen, rejected, line)
        if pair.is_cut and chosen.tokens == rejected.tokens:
            raise self._too_long(self.max_length + 1, line)
        return pair

    def prompt(self, messages: Messages, tools: Tools | None = None) -> list[int]:
        """Tokens of a conversation that ends where the assistant is to speak. Raises UserError as its template does."""
        conversations = self._conversations
        transcript = conversations.transcript(messages, tools)
        hidden = conversations.hide(transcript)
        text = conversations.render(transcript.messages, transcript.tools, hidden, generate=True)
        return [id_ for _, ids in conversations.encode(text, hidden, conversations.cuts(text)) for id_ in ids]

    @property
    def call_format(self) -> CallFormat:
        """How the assistant's calls are written here."""
        return self._conversations.call_format

    def encode(self, text: str) -> list[int]:
        """Tokens of plain text from its beginning, to be continued; of an empty one, those that begin any text here."""
        return self._encoding.prompt(text)

    def continuation(self, text: str) -> list[int]:
        """Tokens of plain text that goes on after other tokens."""
        return self._encoding.continuation(text)

    def _chat(self, messages: Messages, tools: Tools | None, line: int) -> tuple[list[int], list[bool]]:
        if not any(_learned(message) for message in messages):
            return [], []
        conversations = self._conversations
        try:
            transcript = conversations.transcript(messages, tools)
            messages = transcript.messages
            hidden = conversations.hide(transcript)
            text = conversations.render(messages, transcript.tools, hidden, generate=False)
            cuts = conversations.cuts(text)
            pieces = conversations.encode(text, hidden, cuts)
            # Before its answers are looked for, which takes longer.
            self._check_length(sum(len(ids) for _, ids in pieces), line)
            wanted = [index for index, message in enumerate(messages) if _learned(message)]
            answers = conversations.locate(transcript, text, hidden, cuts, wanted)
        except UserError as error:
            if isinstance(error, DataError):
                raise
            raise DataError(error.message, line=line, param=error.param, next_action=error.next_action) from error
        except AmbiguousAnswerError as error:
            index = transcript.origins[error.index]
            raise DataError(
                f"it is not known where the answer in message {index} lies: {error}",
                line=line,
                param=f"messages.{index}",
                next_action="split the conversation so that this answer is its last message, or give it the weight 0",
            ) from error
        last = answers.get(len(messages) - 1)
        if last is not None and (last not in cuts or last.end is None):
            text = conversations.without_tail(text) if last.end is None else text
            cuts = [*(cut for cut in cuts if cut.begin < last.begin), last]
            pieces = conversations.encode(text, hidden, cuts)
        begins = {answer.begin for answer in answers.values()}
        tokens: list[int] = []
        mask: list[bool] = []
        for place, (position, ids) in enumerate(pieces):
            # An answer that begins where the text does comes after an empty piece.
            tokens += ids
            mask += [position in begins and place > 0] * len(ids)
        return self._ended(tokens, mask) if last is not None and last.end is None else (tokens, mask)

    def _completion(self, prompt: str, completion: str, line: int) -> tuple[list[int], list[bool]]:
        before = self.encode(prompt)
        answer = self.continuation(completion) if prompt else self._encoding.beginning(completion)
        if not before:
            raise DataError(
                "the prompt is empty, and this base has no token that begins a text, so it could not be asked for",
                line=line,
                param="prompt",
                next_action="give it a prompt, or remove the line",
            )
        return self._ended([*before, *answer], [False] * len(before) + [True] * len(answer))

    def _text(self, text: str) -> tuple[list[int], list[bool]]:
        """All of it is learned, but for what begins any text, and the first token: nothing is there to predict it."""
        tokens = self.encode(text)
        given = max(1, len(self._encoding.begin))
        return self._ended(tokens, [index >= given for index in range(len(tokens))])

    def _ended(self, tokens: list[int], mask: list[bool]) -> tuple[list[int], list[bool]]:
        """With the end of text, which is learned."""
        end = self._encoding.end
        return (tokens, mask) if end is None else ([*tokens, end], [*mask, True])

    def _check_length(self, length: int, line: int) -> None:
        if length > self.max_length and not self._truncates:
            raise self._too_long(length, line)

    def _too_long(self, length: int, line: int) -> RowTooLongError:
        return RowTooLongError(length, line, self.max_length, self._base_length)


def _learned(message: Mapping[str, Any]) -> bool:
    return bool(message["role"] == "assistant" and message.get("weight", 1) != 0)


def read_examples(rows: Iterable[osora_data.Row], renderer: Renderer) -> list[Example]:
    """Render every row of a training file, in order. Raises DataError at the first that cannot be used."""
    return [renderer.render(row.value, row.line) for row in rows]


def read_preferences(rows: Iterable[osora_data.Row], renderer: Renderer) -> list[Preference]:
    """The same for a file of preferences."""
    return [renderer.preference(row.value, row.line) for row in rows]
