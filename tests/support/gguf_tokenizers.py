"""Tokenizers of each kind that a GGUF file has tables for, small and trained here, and texts that tell them apart."""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tests.support.tokenizers import CHATML, LLAMA_2, LLAMA_3, byte_level, metaspace

ENGLISH = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA_3_CUT = ENGLISH + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN_2_CUT = LLAMA_3_CUT.replace("{1,3}", "")
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s|"
_SLASHED = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT_4O_CUT = _CASED % (f"{ENGLISH}?", f"{ENGLISH}?") + r"\p{N}{1,3}" + _SLASHED
TEKKEN_CUT = _CASED % ("", "") + r"\p{N}" + _SLASHED

TEXTS = (
    "Hello, world! It's a test; they'LL see, I'M sure.",
    "  two spaces,   three\n\n\nlines\t\ttabs \r\n end  ",
    " \n \t\n",
    "def f(x: int) -> int:\n    return x**2 + 0x1F  # why?\n\n\nclass A:\n\tpass\n",
    "1 12 123 1234 12345.678 3,141,592 ½ ² ١٢٣ 2026-11-27T20:00:00Z",
    "naïve café — “quotes” … €5 £3 and ¿qué?",
    "東京は夜の七時 привет мир Ελλάδα עברית हिन्दी ไทย",
    "😀👩‍👩‍👧‍👦🏳️‍🌈 é = é",
    "CamelCaseWORDSAndmore snake_case/path/to/file.txt https://example.org/?q=1&r=2",
    "a",
    "",
    " ",
    "\n",
    "....!!!!----====\\\\///",
    "\u00a0nbsp\u2003em\u200bzero",
)


def cutting(pattern: str, *, whole_words: bool = False, composed: bool = False) -> Tokenizer:
    """Bytes, in words that a pattern cuts."""
    backend = byte_level()
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    if composed:
        backend.normalizer = normalizers.NFC()
    backend.model.ignore_merges = whole_words
    return backend


def digits() -> Tokenizer:
    """SmolLM's and StarCoder's."""
    backend = byte_level()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return backend


def pieces(scheme: str, *more: str) -> Tokenizer:
    """As those made from SentencePiece's files: every pair that makes a piece is in the table of merges."""
    state = json.loads(metaspace(scheme).to_str())
    vocabulary = state["model"]["vocab"]
    vocabulary |= {piece: len(vocabulary) + index for index, piece in enumerate(more)}
    ranked = dict.fromkeys([*more, *(left + right for left, right in state["model"]["merges"])])
    state["model"]["merges"] = [
        [piece[:at], piece[at:]]
        for piece in ranked
        for at in range(1, len(piece))
        if piece[:at] in vocabulary and piece[at:] in vocabulary
    ]
    return Tokenizer.from_str(json.dumps(state))


def gemma() -> Tokenizer:
    """Spaces are characters of their own, and none is put before a text."""
    backend = pieces("never", "▁▁", "▁▁▁", "▁▁▁▁")
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = None
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_tokens([AddedToken("\n\n", normalized=False), AddedToken("▁▁", normalized=False)])
    return backend


def _begun(backend: Tokenizer) -> Tokenizer:
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
    )
    return backend


# Every part of what it prints begins with a space.
MISTRAL_02 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ ' [INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
# Exact in conversations alone, and in texts that do not begin with a space.
ONLY_CONVERSATIONS = ("Llama 2", "Mistral 0.2")
NO_FIRST_SPACE = ("Llama 2 always",)
# Each with llama.cpp's name for how it cuts words, and a chat template.
KINDS: dict[str, tuple[Callable[[], Tokenizer], str, str]] = {
    "GPT-2": (byte_level, "gpt-2", CHATML),
    "SmolLM": (digits, "smollm", CHATML),
    "Llama 3": (lambda: _begun(cutting(LLAMA_3_CUT, whole_words=True)), "llama-bpe", LLAMA_3),
    "Llama 3 by merges": (lambda: cutting(LLAMA_3_CUT), "smaug-bpe", LLAMA_3),
    "Qwen 2": (lambda: cutting(QWEN_2_CUT), "qwen2", CHATML),
    "GPT-4o": (lambda: cutting(GPT_4O_CUT), "gpt-4o", CHATML),
    "Tekken": (lambda: _begun(cutting(TEKKEN_CUT, whole_words=True)), "tekken", CHATML),
    "Llama 2 legacy": (lambda: _begun(pieces("legacy")), "default", LLAMA_2),
    "Llama 2": (lambda: _begun(pieces("first")), "default", LLAMA_2),
    "Llama 2 always": (lambda: _begun(pieces("always")), "default", LLAMA_2),
    "Mistral 0.2": (lambda: _begun(pieces("always")), "default", MISTRAL_02),
    "Gemma": (lambda: _begun(gemma()), "default", CHATML),
}


@cache
def _trained(kind: str) -> str:
    state: str = KINDS[kind][0]().to_str()
    return state


def tokenizer_of(kind: str) -> PreTrainedTokenizerBase:
    """A tokenizer of a kind in KINDS with its chat template."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained(kind)), bos_token="<s>", eos_token="</s>"
    )
    tokenizer.chat_template = KINDS[kind][2]
    return tokenizer


def conversation(text: str) -> list[dict[str, Any]]:
    """Three turns that say a text."""
    return [{"role": role, "content": text} for role in ("user", "assistant", "user")]
