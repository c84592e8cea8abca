"""Small tokenizers of the kinds that bases have, trained here, and chat templates of the kinds that come with them."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

TINY = Path(__file__).parents[2] / "models" / "osora-tiny"
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
CORPUS = [
    "the cow says moo and  the dog says    yes\n\n",
    "11 plus 12 = 23, 12 plus 13 = 25\n",
    "user assistant system [INST] what is it? [/INST] it is so",
    "naïve café — 東京 привет 😀",
    "<|im_start|>user\nhello<|im_end|>\n",
] * 4

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
LLAMA_2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content | trim }} {{ eos_token }}"
    "{% else %}[INST] {{ m.content | trim }} [/INST]{% endif %}{% endfor %}"
)
PLAIN = (
    "{% for m in messages %}{{ 'Assistant' if m.role == 'assistant' else 'User' }}: {{ m.content }}"
    "{{ eos_token if m.role == 'assistant' else '\n' }}{% endfor %}{% if add_generation_prompt %}Assistant: {% endif %}"
)
TEMPLATES = {"chatml": CHATML, "llama-3": LLAMA_3, "llama-2": LLAMA_2, "plain": PLAIN}


def byte_level(*, prefix: bool = False) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def splitting_digits() -> Tokenizer:
    """As Llama 3 splits text: white space of any length together, up to three digits a word."""
    backend = byte_level()
    pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return backend


def metaspace(scheme: str) -> Tokenizer:
    """Llama 2's and Mistral's: `legacy` prepends in the normalizer, the others in the pre-tokenizer."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>", *SPECIAL, *bytes_], show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    # The bytes are no added tokens in those tokenizers, only entries of the vocabulary.
    backend = _without_added(backend, set(bytes_))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    if scheme == "legacy":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        backend.pre_tokenizer = None
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    return backend


def unigram() -> Tokenizer:
    """T5's kind of model, with bytes for what it does not know."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<unk>", *SPECIAL], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    state = _state(backend)
    known = {piece for piece, _ in state["model"]["vocab"]}
    state["model"]["vocab"] += [[f"<0x{byte:02X}>", -20.0] for byte in range(256) if f"<0x{byte:02X}>" not in known]
    state["model"]["byte_fallback"] = True
    backend = _restored(state)
    steps = [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")]
    backend.decoder = decoders.Sequence(steps)
    return backend


def _state(backend: Tokenizer) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(backend.to_str())
    return state


def _restored(state: dict[str, Any]) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(state))


def _without_added(backend: Tokenizer, contents: set[str]) -> Tokenizer:
    state = _state(backend)
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in contents]
    return _restored(state)


def _with_begin_and_end(backend: Tokenizer) -> Tokenizer:
    tokens = [(name, backend.token_to_id(name)) for name in ("<s>", "</s>")]
    backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=tokens)
    return backend


def _with_begin(backend: Tokenizer) -> Tokenizer:
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
    )
    return backend


def _unmarked(backend: Tokenizer) -> Tokenizer:
    """As DeepSeek's: what marks turns is an added token that is not called special."""
    state = _state(backend)
    for token in state["added_tokens"]:
        token["special"] = token["content"] in ("<s>", "</s>")
    backend = _restored(state)
    backend.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    return backend


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "gpt-2": byte_level,
    "llama-3": lambda: _with_begin(splitting_digits()),
    "prefix space": lambda: byte_level(prefix=True),
    "llama-2 legacy": lambda: _with_begin(metaspace("legacy")),
    "llama-2": lambda: _with_begin(metaspace("first")),
    "metaspace always": lambda: metaspace("always"),
    "unigram": unigram,
    "begin and end": lambda: _with_begin_and_end(byte_level()),
    "turns not special": lambda: _unmarked(byte_level()),
}
NAMES = [*KINDS, "osora-tiny"]


@cache
def _trained(kind: str) -> str:
    """Once, as two trainings may differ."""
    state: str = KINDS[kind]().to_str()
    return state


@cache
def tokenizer_of(kind: str, template: str | None = None) -> PreTrainedTokenizerBase:
    """A tokenizer of a kind with a chat template; osora-tiny's with its own unless another is named.

    All tests have the same: whoever changes it makes a copy first.
    """
    if kind == "osora-tiny":
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(TINY)
        tokenizer.add_special_tokens({"bos_token": "<|endoftext|>"})
        if template not in (None, "chatml"):
            tokenizer.add_tokens([AddedToken(name, special=True) for name in SPECIAL])
    else:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(_trained(kind)), bos_token="<s>", eos_token="</s>"
        )
    if template is not None:
        tokenizer.chat_template = TEMPLATES[template]
    return tokenizer
