"""The tokenizer in a GGUF file's tables, as transformers reads it: `osora_core.export.gguf_vocabulary` the other way
round. How text is cut into words stands in the file by name alone; a name that is not known is refused."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gguf import TokenType
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from osora_core.export.gguf_vocabulary import CUTS
from osora_core.gguf_base.head import GgufFile, unsupported

_PREFIX = "tokenizer.ggml."
# Other names of rules that have one in the export.
_ALIASES = {"gpt2": "gpt-2", "llama3": "llama-bpe", "llama-v3": "llama-bpe", "starcoder": "smollm", "refact": "smollm"}


def tokenizer_of(file: GgufFile) -> PreTrainedTokenizerBase:
    """Raises UnsupportedBase for a kind of tokenizer, or a rule of cutting words, that is not known."""
    model = file.says.get(f"{_PREFIX}model")
    if model == "gpt2":
        tokenizer = _of_bytes(file)
    elif model == "llama":
        tokenizer = _of_pieces(file)
    else:
        raise unsupported(f"{file.path.name} has a tokenizer of the kind {model!r}, and only gpt2 and llama are read")
    template = file.says.get("tokenizer.chat_template")
    if isinstance(template, str):
        tokenizer.chat_template = template
    tokenizer.model_max_length = file.config.max_position_embeddings
    return tokenizer


def _of_bytes(file: GgufFile) -> PreTrainedTokenizerBase:
    tokens: Sequence[str] = file.says.get(f"{_PREFIX}tokens", ())
    types: Sequence[int] = file.says.get(f"{_PREFIX}token_type", [TokenType.NORMAL] * len(tokens))
    merges: Sequence[str] = file.says.get(f"{_PREFIX}merges", ())
    if not tokens or not merges:
        raise unsupported(f"{file.path.name} has no tokens or no merges")
    pre, whole_words, composed = _cutting(file)
    used = {text: id for id, text in enumerate(tokens) if types[id] != TokenType.UNUSED}
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    backend = Tokenizer(models.BPE(vocab=used, merges=pairs, ignore_merges=whole_words))
    backend.pre_tokenizer, backend.decoder = pre, decoders.ByteLevel()
    if composed:
        backend.normalizer = normalizers.NFC()
    for id, text in enumerate(tokens):
        if types[id] in (TokenType.CONTROL, TokenType.USER_DEFINED):
            backend.add_tokens([AddedToken(text, special=types[id] == TokenType.CONTROL, normalized=False)])
    _add_around(file, backend, tokens)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **_named(file, tokens))  # type: ignore[no-untyped-call]


def _cutting(file: GgufFile) -> tuple[pre_tokenizers.PreTokenizer, bool, bool]:
    """How words are cut; whether a word that is a token is taken whole; whether text is composed first."""
    name = str(file.says.get(f"{_PREFIX}pre", ""))
    by_name = {known: key for key, known in CUTS.items()}
    found = by_name.get(_ALIASES.get(name, name))
    if found is None:
        raise unsupported(
            f"{file.path.name} cuts text into words by the rule {name or '(none is named)'}, which is not known here"
        )
    how, whole_words = found
    if how == "bytes":
        return pre_tokenizers.ByteLevel(add_prefix_space=False), whole_words, False
    if how == "digits bytes":
        steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        return pre_tokenizers.Sequence(steps), whole_words, False
    split = pre_tokenizers.Split(Regex(how.removesuffix(" mapped")), behavior="isolated")
    mapped = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([split, mapped]), whole_words, name == "qwen2"


def _of_pieces(file: GgufFile) -> PreTrainedTokenizerBase:
    """By transformers' own reading of the tables of SentencePiece."""
    folder, name = file.path.parent, file.path.name
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    except Exception as error:  # what a table lacks shows as an error of any kind
        reason = " ".join(str(error).split())[:200]
        raise unsupported(f"the tokenizer of {file.path.name} cannot be read: {reason}") from error
    if tokenizer("a").input_ids == []:
        raise unsupported(f"the tokenizer of {file.path.name} cannot be read")
    return tokenizer


def _named(file: GgufFile, tokens: Sequence[str]) -> dict[str, str]:
    names = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
    ids: Mapping[str, Any] = {ours: file.says.get(f"{_PREFIX}{theirs}_token_id") for theirs, ours in names.items()}
    return {name: tokens[id] for name, id in ids.items() if id is not None and id < len(tokens)}


def _add_around(file: GgufFile, backend: Tokenizer, tokens: Sequence[str]) -> None:
    """What stands before and behind every text."""
    asked = [(name, bool(file.says.get(f"{_PREFIX}add_{name}_token", False))) for name in ("bos", "eos")]
    around = {name: tokens[file.says[f"{_PREFIX}{name}_token_id"]] for name, wanted in asked if wanted}
    if around:
        parts = [*([around["bos"]] if "bos" in around else []), "$A", *([around["eos"]] if "eos" in around else [])]
        special = [(text, backend.token_to_id(text)) for text in set(around.values())]
        backend.post_processor = processors.TemplateProcessing(single=" ".join(parts), special_tokens=special)


def save(file: GgufFile, folder: Path) -> None:
    """The tokenizer's files in a folder, chat template included."""
    tokenizer_of(file).save_pretrained(folder)
