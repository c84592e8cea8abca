"""Output that must match a JSON schema or a regular expression: which tokens may come next (by llguidance).

What a constraint may cost is bounded in llguidance's own units of work, so that the same one is refused on every
machine, however busy. A mask takes some ten milliseconds at most, the first some hundred, and that one is computed with
the grammar.
"""

import hashlib
import json
import os
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from textwrap import shorten
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any

import torch
from llguidance import LLMatcher, LLTokenizer
from llguidance._lib import LLParserLimits
from llguidance.hf import from_tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from osora_common.priority import give_way
from osora_core.errors import UserError
from osora_core.inference.formats import with_known_formats

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

# At most one space between the parts of a document: what json.dumps writes, and no endless blank for a weak model.
_JSON_OPTIONS: "JsonCompileOptions" = {"whitespace_pattern": " ?"}
# Ten times less work than by default for compiling and for one mask; see the module's docstring. Verbose errors show
# the parser's state, which says nothing to a person.
_LIMITS = LLParserLimits(
    initial_lexer_fuel=100_000, step_lexer_fuel=20_000, max_lexer_states=50_000, verbose_errors=False
)
_VERBOSE_MARK = "<non-verbose/>"
_NOTHING_MATCHES = "NoExtensionBias"
# Of an error in a grammar of Lark: its line, the reason, and the grammar.
_LARK_ERROR = re.compile(r"at (\d+)\(\d+\): (?:failed to compile JSON schema: )?(.*?)(?:\n +\d+ \| .*)?", re.DOTALL)
# Memory is taken before the limits count anything, up to a kilobyte a character (classes such as \p{L}).
_MAX_CHARACTERS = {"regex": 16 * 1024, "json_schema": 128 * 1024, "tools": 192 * 1024}
_CACHED_CHARACTERS = 512 * 1024
_CACHED_GRAMMARS = 256
# What two hops to another thread are worth.
_DEAR_SECONDS = 0.002
# What a step of the engine may wait for one.
_LATE_SECONDS = 0.01
# The limits bound a mask. This is for what they may overlook, in seconds of a processor.
_MASK_SECONDS = 2.0
_LOOK_SECONDS = 0.1
_COMPILERS = 2
_MASK_THREADS = min(4, os.cpu_count() or 1)


class Matcher:
    """The state of one generation within its grammar.

    Cheap masks are computed when they are asked for. Once they are dear, another thread computes each as soon as the
    token before it is known, beside the model's next pass.
    """

    def __init__(self, matcher: LLMatcher, param: str, threads: Executor, first: Tensor) -> None:
        self._matcher = matcher
        self._param = param
        self._threads = threads
        self._mask: Tensor | None = first
        self._coming: Future[Tensor] | None = None
        self._spent: Callable[[], float] = _nothing
        self._seconds = 0.0
        self.complete = bool(matcher.is_stopped())
        """Whether the text is whole and nothing can follow it."""

    @property
    def is_late(self) -> bool:
        """Whether the mask is not there yet, and either waits for a thread or those before it took long: then others
        need not wait for it."""
        coming = self._coming
        if coming is None or coming.done() or self._spent() >= _MASK_SECONDS:
            return False
        return not coming.running() or self._seconds > _LATE_SECONDS

    def allowed(self) -> Tensor:
        """bool [vocabulary]: the tokens that may come next, an end-of-text token where the text may end.

        Raises UserError if there is no telling within bounds.
        """
        if self._mask is None:
            self._mask = self._compute() if self._coming is None else self._await(self._coming)
        return self._mask

    def accept(self, token: int) -> None:
        """Go on by one token that was allowed. Raises UserError if the grammar gives up."""
        self._matcher.consume_token(token)
        _check(self._matcher, self._param)
        self.complete = bool(self._matcher.is_stopped())
        self._mask = None
        dear = self._seconds > _DEAR_SECONDS and not self.complete
        self._spent = _nothing
        self._coming = self._threads.submit(self._compute) if dear else None

    def _await(self, coming: Future[Tensor]) -> Tensor:
        """The bound is of the work alone: how long others keep the threads busy, or the machine its processors, says
        nothing about this constraint."""
        while True:
            try:
                return coming.result(_LOOK_SECONDS)
            except TimeoutError:
                if self._spent() >= _MASK_SECONDS:
                    raise _refused(self._param, "finding the next token takes too long") from None

    def _compute(self) -> Tensor:
        self._spent = _work_of_this_thread()
        started = time.perf_counter()
        mask = _mask(self._matcher, self._param)
        self._seconds = time.perf_counter() - started
        return mask


def _nothing() -> float:
    return 0.0


def _work_of_this_thread() -> Callable[[], float]:
    """Seconds that the calling thread computes from now on, for any thread to read; elsewhere than on Linux, where no
    thread can read another's, seconds that pass."""
    read: Callable[[], float] = time.monotonic
    if sys.platform == "linux":
        read = partial(time.clock_gettime, time.pthread_getcpuclockid(get_ident()))
    began = read()
    return lambda: read() - began


class Grammar:
    """A compiled constraint; `start()` begins a generation within it. `param` is the field that it came from."""

    def __init__(self, matcher: LLMatcher, param: str, threads: Executor, first: Tensor) -> None:
        self._matcher = matcher
        self._param = param
        self._threads = threads
        self._first = first

    def start(self) -> Matcher:
        """The beginning; its mask is there already."""
        return Matcher(self._matcher.deep_copy(), self._param, self._threads, self._first)


class GrammarCompiler:
    """Compiles constraints for one tokenizer. Making it takes up to a second for a large vocabulary.

    For any thread. What was compiled or refused lately costs nothing when it is asked for again.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: int, eos_ids: Iterable[int]) -> None:
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise UserError(f"the base's tokenizer is a {type(tokenizer).__name__}; only fast ones are supported")
        self._tokenizer: LLTokenizer = from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=sorted(eos_ids))
        self.controls = {
            token.content: id_
            for id_, token in tokenizer.added_tokens_decoder.items()
            if self._tokenizer.is_special_token(id_)
        }
        """Tokens that a grammar has to name: no text in it has them."""
        special = frozenset(id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special)
        self.spoken = frozenset(self.controls.values()) - special
        """Those of them that are text for the tokenizer."""
        self._threads = ThreadPoolExecutor(_MASK_THREADS, "grammar-mask", initializer=give_way)
        self._compilers = ThreadPoolExecutor(_COMPILERS, "grammar-compile", initializer=give_way)
        self._compiled = _Compiled()

    def json_schema(self, schema: Mapping[str, Any]) -> Grammar:
        """A grammar of the JSON documents that `schema` allows. Raises UserError if it cannot be compiled."""
        try:
            text = json.dumps(with_known_formats(schema))
        except RecursionError:
            raise _unusable("json_schema", "it is nested too deep") from None
        return self._grammar("json_schema", text, _of_json_schema)

    def regex(self, pattern: str) -> Grammar:
        """A grammar of the texts that `pattern` matches from end to end. Raises UserError if it is none."""
        if (len(pattern) - len(pattern.rstrip("\\"))) % 2:  # llguidance takes it for something else
            raise _unusable("regex", "it ends in a backslash, which says that something follows")
        return self._grammar("regex", pattern, LLMatcher.grammar_from_regex)

    def lark(self, param: str, text: str) -> Grammar:
        """A grammar in llguidance's form of Lark. Raises UserError that blames `param` if it cannot be compiled, and
        says what the comment at the end of the line says that is to blame."""
        return self._grammar(param, text, LLMatcher.grammar_from_lark)

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for, be it a part of a character."""
        return bytes(self._tokenizer.decode_bytes([token]))

    def _grammar(self, param: str, text: str, parse: Callable[[str], str]) -> Grammar:
        most = _MAX_CHARACTERS[param]
        if len(text) > most:
            raise UserError(
                f"{param} has {len(text)} characters; at most {most} are allowed",
                param=param,
                next_action=f"shorten {param}",
            )

        def compile() -> Grammar | UserError:
            return self._compilers.submit(self._compile, param, text, parse).result()

        found = self._compiled.get(param, text, compile)
        if isinstance(found, UserError):
            # One of its own for each that asks: whoever raises an error writes into it.
            raise UserError(found.message, param=param, next_action=found.next_action)
        return found

    def _compile(self, param: str, text: str, parse: Callable[[str], str]) -> "Grammar | UserError":
        try:
            matcher = LLMatcher(self._tokenizer, parse(text), log_level=0, limits=_LIMITS)
            if matcher.is_error():
                return _unusable(param, _reason(matcher.get_error(), text))
            # The first mask is the dearest of most constraints, and where those that are too large show it.
            mask = _mask(matcher, param)
            _try_a_step(matcher, param, mask)
            return Grammar(matcher, param, self._threads, mask)
        except UserError as error:
            return error


class _Compiled:
    """Constraints by their text, compiled or refused, the one that was used longest ago leaving first. Whoever asks
    for one that is just being compiled waits for it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._entries: OrderedDict[bytes, tuple[int, Future[Grammar | UserError]]] = OrderedDict()
        self._characters = 0

    def get(self, param: str, text: str, compile: Callable[[], Grammar | UserError]) -> Grammar | UserError:
        key = hashlib.sha256(f"{param} {text}".encode(errors="surrogatepass")).digest()
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                mine: Future[Grammar | UserError] = Future()
                self._entries[key] = len(text), mine
                self._characters += len(text)
                while self._characters > _CACHED_CHARACTERS or len(self._entries) > _CACHED_GRAMMARS:
                    self._characters -= self._entries.popitem(last=False)[1][0]
            else:
                self._entries.move_to_end(key)
        if entry is not None:
            return entry[1].result()
        try:
            mine.set_result(compile())
        except BaseException as error:
            mine.set_exception(error)
        return mine.result()


def _of_json_schema(schema: str) -> str:
    try:
        return LLMatcher.grammar_from_json_schema(schema, overrides=_JSON_OPTIONS)
    except ValueError as error:  # such as one that is nested too deep
        raise _unusable("json_schema", _brief(str(error))) from None


def _mask(matcher: LLMatcher, param: str) -> Tensor:
    mask = torch.frombuffer(bytearray(matcher.compute_logit_bias()), dtype=torch.uint8)
    _check(matcher, param)
    return mask > 0


def _try_a_step(matcher: LLMatcher, param: str, mask: Tensor) -> None:
    """Raise UserError if computing `mask` was too much: llguidance says so only with the token that follows."""
    if mask.any() and not matcher.is_stopped():
        probe = matcher.deep_copy()
        probe.consume_token(int(mask.nonzero()[0]))
        _check(probe, param)


def _check(matcher: LLMatcher, param: str) -> None:
    if matcher.is_error():
        raise _refused(param, _brief(matcher.get_error()))


def _refused(param: str, reason: str) -> UserError:
    return UserError(f"{param} cannot be followed: {reason}", param=param, next_action=f"simplify {param}")


def _unusable(param: str, reason: str) -> UserError:
    return UserError(f"{param} cannot be used: {reason}", param=param, next_action=f"simplify or correct {param}")


def _reason(error: str, grammar: str) -> str:
    """What is wrong, without the grammar, which is none that a person wrote."""
    found = _LARK_ERROR.fullmatch(error)
    if found is None:
        return _brief(error)
    _, is_commented, comment = grammar.split("\n")[int(found[1]) - 1].rpartition(" // ")
    return _brief(f"{comment}: {found[2]}" if is_commented else found[2])


def _brief(text: str) -> str:
    brief = shorten(text.replace(_VERBOSE_MARK, ""), 200, placeholder=" …")
    return "there is no text that it allows" if brief == _NOTHING_MATCHES else brief
