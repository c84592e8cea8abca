"""Tokenizers as well-known models have them, small and made here: what begins and ends a text, which turns are control
tokens, what the chat template prints."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tests.support.tokenizers import byte_level, metaspace, splitting_digits, unigram

_REFUSE_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"


@dataclass(frozen=True)
class Convention:
    """`begin` and `end`: what the tokenizer puts around every text by itself. `strips_right`: `rstrip` of the tokens of
    turns. `written`: added tokens that are not special."""

    backend: Callable[[], Tokenizer]
    bos: str | None
    eos: str
    template: str | None
    turns: tuple[str, ...] = ()
    begin: bool = False
    end: bool = False
    strips_right: bool = False
    system: bool = True
    written: tuple[str, ...] = ()


def _gemma() -> Tokenizer:
    """Spaces are characters of their own, and none is put before a text."""
    backend = metaspace("never")
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = None
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return backend


def _qwen() -> Tokenizer:
    backend = splitting_digits()
    backend.normalizer = normalizers.NFC()
    return backend


CONVENTIONS: dict[str, Convention] = {
    "Llama 2": Convention(
        lambda: metaspace("legacy"), "<s>", "</s>",
        "{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0].content %}"
        "{% else %}{% set rest = messages %}{% set system = false %}{% endif %}"
        "{% for m in rest %}{% if loop.first and system %}"
        "{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + m.content %}"
        "{% else %}{% set content = m.content %}{% endif %}"
        "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
        "{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
        begin=True,
    ),
    "Llama 3": Convention(
        splitting_digits, "<|begin_of_text|>", "<|eot_id|>",
        "{% for m in messages %}{% set content = '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n'"
        " + m.content | trim + '<|eot_id|>' %}{% if loop.first %}{% set content = bos_token + content %}{% endif %}"
        "{{ content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
        ("<|start_header_id|>", "<|end_header_id|>"), begin=True,
    ),
    "Qwen 2": Convention(
        _qwen, None, "<|im_end|>",
        "{% for m in messages %}{% if loop.first and messages[0].role != 'system' %}"
        "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
        "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
        ("<|im_start|>",),
    ),
    "Gemma": Convention(
        _gemma, "<bos>", "<eos>",
        "{{ bos_token }}" + _REFUSE_SYSTEM + "{% for m in messages %}"
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
        "{% set role = 'model' if m.role == 'assistant' else m.role %}"
        "{{ '<start_of_turn>' + role + '\\n' + m.content | trim + '<end_of_turn>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
        ("<start_of_turn>", "<end_of_turn>"), begin=True, system=False,
    ),
    "Mistral": Convention(
        lambda: metaspace("first"), "<s>", "</s>",
        "{{ bos_token }}" + _REFUSE_SYSTEM + "{% for m in messages %}"
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
        "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
        "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}",
        begin=True, system=False,
    ),
    "Mistral v3": Convention(
        lambda: metaspace("first"), "<s>", "</s>",
        "{{ bos_token }}" + _REFUSE_SYSTEM + "{% for m in messages %}"
        "{% if m.role == 'user' %}{{ '[INST] ' + m.content + '[/INST]' }}"
        "{% else %}{{ ' ' + m.content | trim + eos_token }}{% endif %}{% endfor %}",
        ("[INST]", "[/INST]"), begin=True, system=False,
    ),
    "GPT-2": Convention(byte_level, "<|endoftext|>", "<|endoftext|>", None),
    "Phi-3": Convention(
        lambda: metaspace("legacy"), "<s>", "<|endoftext|>",
        "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}",
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), strips_right=True,
    ),
    "Zephyr": Convention(
        lambda: metaspace("legacy"), "<s>", "</s>",
        "{% for m in messages %}\n{{ '<|' + m.role + '|>\\n' + m.content + eos_token }}\n"
        "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
        begin=True,
    ),
    "T5": Convention(unigram, None, "</s>", None, end=True),
    "SmolLM2": Convention(
        byte_level, "<|im_start|>", "<|im_end|>",
        "{% for m in messages %}{% if loop.first and messages[0].role != 'system' %}"
        "{{ '<|im_start|>system\\nYou are a helpful AI assistant named SmolLM<|im_end|>\\n' }}{% endif %}"
        "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    ),
    "both ends": Convention(
        byte_level, "<s>", "</s>",
        "{{ bos_token }}{% for m in messages %}{{ m.role + ':\\n' + m.content + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:\\n' }}{% endif %}",
        begin=True, end=True,
    ),
}  # fmt: skip


@cache
def _trained(convention: Convention) -> str:
    """Once, as two trainings may differ."""
    backend = convention.backend()
    own = [token for token in (convention.bos, convention.eos) if token]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in own])
    backend.add_special_tokens(
        [AddedToken(turn, special=True, normalized=False, rstrip=convention.strips_right) for turn in convention.turns]
    )
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in convention.written])
    around = [convention.bos if convention.begin else "", "$A", convention.eos if convention.end else ""]
    if convention.begin or convention.end:
        backend.post_processor = processors.TemplateProcessing(
            single=" ".join(part for part in around if part),
            special_tokens=[(token, backend.token_to_id(token)) for token in own],
        )
    state: str = backend.to_str()
    return state


@cache
def tokenizer_of(convention: Convention) -> PreTrainedTokenizerBase:
    """A tokenizer that keeps to a convention, with its chat template where it has one. All tests have the same: whoever
    changes it makes a copy first."""
    tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained(convention)), bos_token=convention.bos, eos_token=convention.eos
    )
    tokenizer.chat_template = convention.template
    return tokenizer


def convention_of(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a convention that is known by this name."""
    return tokenizer_of(CONVENTIONS[name])
