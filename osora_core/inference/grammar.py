"""Output that must match a JSON schema or a regular expression: which tokens may come next (by llguidance)."""

import json
from collections.abc import Iterable, Mapping
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import torch
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from osora_core.errors import UserError

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

# At most one space between the parts of a document: what json.dumps writes, and no endless blank for a weak model.
_JSON_OPTIONS: "JsonCompileOptions" = {"whitespace_pattern": " ?"}


class Matcher:
    """The state of one generation within its grammar."""

    def __init__(self, matcher: LLMatcher, param: str) -> None:
        self._matcher = matcher
        self._param = param

    def allowed(self) -> Tensor:
        """bool [vocabulary]: the tokens that may come next, an end-of-text token where the text may end."""
        mask = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8)
        self._check()
        return mask > 0

    def accept(self, token: int) -> None:
        """Go on by one allowed token."""
        self._matcher.consume_token(token)
        self._check()

    @property
    def complete(self) -> bool:
        """Whether the text is whole and nothing can follow it."""
        return bool(self._matcher.is_stopped())

    def _check(self) -> None:
        if self._matcher.is_error():
            raise UserError(
                f"{self._param} cannot be followed: {_brief(self._matcher.get_error())}",
                param=self._param,
                next_action=f"simplify {self._param}",
            )


class Grammar:
    """A compiled constraint; `start()` begins a generation within it. `param` is the field that it came from."""

    def __init__(self, matcher: LLMatcher, param: str) -> None:
        self._matcher = matcher
        self._param = param

    def start(self) -> Matcher:
        return Matcher(self._matcher.deep_copy(), self._param)


class GrammarCompiler:
    """Compiles constraints for one tokenizer. Making it takes up to a second for a large vocabulary."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: int, eos_ids: Iterable[int]) -> None:
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise UserError(f"the base's tokenizer is a {type(tokenizer).__name__}; only fast ones are supported")
        self._tokenizer: LLTokenizer = from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=sorted(eos_ids))

    def json_schema(self, schema: Mapping[str, Any]) -> Grammar:
        """A grammar of the JSON documents that `schema` allows. Raises UserError if it cannot be compiled."""
        return self._compile(
            LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_JSON_OPTIONS), "json_schema"
        )

    def regex(self, pattern: str) -> Grammar:
        """A grammar of the texts that `pattern` matches from end to end. Raises UserError if it is none."""
        return self._compile(LLMatcher.grammar_from_regex(pattern), "regex")

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for, be it a part of a character."""
        return bytes(self._tokenizer.decode_bytes([token]))

    def _compile(self, grammar: str, param: str) -> Grammar:
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise UserError(f"{param} cannot be used: {_brief(matcher.get_error())}", param=param)
        return Grammar(matcher, param)


def _brief(text: str) -> str:
    return shorten(text, 200, placeholder=" …")
