"""A tokenizer as llama.cpp's tables.

llama.cpp cuts text into words by a rule that it knows by name, and then merges characters by a table. The parts of a
tokenizer are compared with those rules; one that has any other part is refused, for its texts would become other tokens
than those that the base was trained on, without a word.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gguf import GGUFWriter, TokenType
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from osora_core.export.gguf_family import refusal

_SPACE = "▁"
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_ENGLISH = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s|"
)
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_REST_SLASHED = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# How words are cut, and whether a word that is a token is taken whole -> llama.cpp's name for both.
CUTS: Mapping[tuple[str, bool], str] = {
    ("bytes", False): "gpt-2",
    ("digits bytes", False): "smollm",
    (f"{_ENGLISH}|{_WORD}|\\p{{N}}{{1,3}}|{_REST} mapped", True): "llama-bpe",
    (f"{_ENGLISH}|{_WORD}|\\p{{N}}{{1,3}}|{_REST} mapped", False): "smaug-bpe",
    (f"{_ENGLISH}|{_WORD}|\\p{{N}}|{_REST} mapped", False): "qwen2",
    (_CASED % (f"{_ENGLISH}?", f"{_ENGLISH}?") + f"\\p{{N}}{{1,3}}|{_REST_SLASHED} mapped", False): "gpt-4o",
    (_CASED % ("", "") + f"\\p{{N}}|{_REST_SLASHED} mapped", True): "tekken",
}
# llama.cpp strips white space behind control tokens if the model's name has one of these in it.
STRIPPING_NAMES = ("phi-3", "phi3")
_STRIPPED_NEVER = ("<unk>", "<s>", "<|endoftext|>")
_GENERATION = re.compile(r"({%[-+]?\s*)(end)?generation(\s*[-+]?%})")
_PROBES = ("Hello, world", "two  spaces", "def f(x):\n\treturn x + 1\n", "naïve café — 東京 😀 12345")


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of a tokenizer.

    pre: how text is cut into words. scores: of pieces, where they are not merged by a table. space: whether a text
    gets a space before it. strips: whether white space behind control tokens is no part of the text.
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[TokenType]
    merges: list[str] | None
    scores: list[float] | None
    space: bool | None
    strips: bool
    begins: bool
    ends: bool
    ids: Mapping[str, int]
    chat_template: str | None

    def write(self, writer: GGUFWriter) -> None:
        """Into the file's head."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.merges is not None:
            writer.add_token_merges(self.merges)
        if self.scores is not None:
            writer.add_token_scores(self.scores)
        for name, id in self.ids.items():
            getattr(writer, f"add_{name}_token_id")(id)
        writer.add_add_bos_token(self.begins)
        writer.add_add_eos_token(self.ends)
        if self.space is not None:
            writer.add_add_space_prefix(self.space)
        if self.chat_template is not None:
            writer.add_chat_template(self.chat_template)


def vocabulary_of(tokenizer: PreTrainedTokenizerBase, size: int, end_of_turn: int | None) -> Vocabulary:
    """The tables of a tokenizer whose base has `size` embeddings; `end_of_turn` is the token that ends an answer.

    Raises UnsupportedBase for a tokenizer that llama.cpp would not follow.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise refusal(f"the tokenizer, a {type(tokenizer).__name__}, has no tables to write")
    if len(tokenizer) > size:
        raise refusal(f"the tokenizer has {len(tokenizer)} tokens, and the base embeddings for {size}")
    state: dict[str, Any] = json.loads(backend.to_str())
    if state["model"]["type"] != "BPE":
        raise refusal(f"llama.cpp reads no tokenizer of the kind {state['model']['type']} with such a base")
    begins, ends = adds_around(tokenizer)
    pieces = state["model"]["byte_fallback"]
    added = {token["id"]: token for token in state["added_tokens"]}
    tokens, types = _tokens(tokenizer, added, size, bytes_are_tokens=pieces)
    scores = _scores(state["model"], tokens, types) if pieces else None
    return Vocabulary(
        model="llama" if pieces else "gpt2",
        pre="default" if pieces else _cut(state),
        tokens=tokens,
        types=types,
        merges=None if pieces else [f"{left} {right}" for left, right in state["model"]["merges"]],
        scores=scores,
        space=_space(tokenizer, state) if pieces else None,
        strips=_strips(added.values()),
        begins=begins,
        ends=ends,
        ids=_special(tokenizer, end_of_turn),
        chat_template=_plain_template(tokenizer),
    )


def _plain_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The chat template without what transformers alone has in it: marks around what is generated.

    A block that is always taken stands in their place, so that what they do to the white space beside them stays.
    """
    template = tokenizer.chat_template
    if not isinstance(template, str):
        return None
    return _GENERATION.sub(lambda mark: f"{mark[1]}{'endif' if mark[2] else 'if true'}{mark[3]}", template)


def adds_around(tokenizer: PreTrainedTokenizerBase) -> tuple[bool, bool]:
    """Whether a text gets bos_token before it, and eos_token behind it. Raises UnsupportedBase if it gets others."""
    plain, whole = (tokenizer("a", add_special_tokens=special).input_ids for special in (False, True))
    for begin in ([], [tokenizer.bos_token_id]):
        for end in ([], [tokenizer.eos_token_id]):
            if [*begin, *plain, *end] == whole:
                return bool(begin), bool(end)
    raise refusal("the tokenizer puts other tokens around a text than its bos_token and eos_token")


def _special(tokenizer: PreTrainedTokenizerBase, end_of_turn: int | None) -> dict[str, int]:
    named = {"bos": "bos_token_id", "eos": "eos_token_id", "unk": "unk_token_id", "pad": "pad_token_id"}
    ids = {name: getattr(tokenizer, attribute) for name, attribute in named.items()}
    if end_of_turn is not None and end_of_turn != ids["eos"]:
        ids["eot"] = end_of_turn
    return {name: id for name, id in ids.items() if id is not None}


def _tokens(
    tokenizer: PreTrainedTokenizerBase, added: Mapping[int, Mapping[str, Any]], size: int, *, bytes_are_tokens: bool
) -> tuple[list[str], list[TokenType]]:
    """Every token by its id; embeddings that no token has are named as llama.cpp's own converter names them."""
    texts = {id: text for text, id in tokenizer.get_vocab().items()}
    tokens = [texts.get(id, f"[PAD{id}]") for id in range(size)]
    missing = [byte for byte in _BYTES if bytes_are_tokens and byte not in texts.values()]
    if missing:
        raise refusal(f"the tokenizer has no token for the byte {missing[0]}")
    return tokens, [_type(id, text, id in texts, added.get(id), bytes_are_tokens) for id, text in enumerate(tokens)]


def _type(id: int, text: str, is_used: bool, added: Mapping[str, Any] | None, bytes_are_tokens: bool) -> TokenType:
    if not is_used:
        return TokenType.UNUSED
    if added is not None and added["special"]:
        return TokenType.CONTROL
    # Such a one is found in a text by its merges alone, as spaces are written otherwise there.
    if added is not None and not (bytes_are_tokens and _SPACE in text):
        return TokenType.USER_DEFINED
    return TokenType.BYTE if bytes_are_tokens and text in _BYTES else TokenType.NORMAL


def _strips(added: Any) -> bool:
    """Whether control tokens take the white space behind them. Raises UnsupportedBase for what llama.cpp cannot."""
    if any(token["lstrip"] or token["single_word"] for token in added):
        raise refusal("llama.cpp has no added tokens that take the white space before them")
    may = [token for token in added if token["special"] and token["content"] not in _STRIPPED_NEVER]
    stripping = [token for token in added if token["rstrip"]]
    if stripping and stripping != may:
        raise refusal(f"llama.cpp has no tokenizer where {stripping[0]['content']} alone takes white space behind it")
    return bool(stripping)


def _cut(state: Mapping[str, Any]) -> str:
    """llama.cpp's name for how a tokenizer of bytes cuts text into words."""
    steps = _steps(state["pre_tokenizer"], "pretokenizers")
    how = " ".join(_step(step) for step in steps)
    name = CUTS.get((how, state["model"].get("ignore_merges") or False))
    normalizers = [step["type"] for step in _steps(state["normalizer"], "normalizers")]
    if name is None or normalizers not in ([], ["NFC"]):
        raise refusal("the tokenizer cuts text into words by a rule that llama.cpp has no name for")
    if not state["model"]["merges"]:
        raise refusal("llama.cpp reads no tokenizer without merges")
    return name


def _steps(part: Mapping[str, Any] | None, name: str) -> Sequence[Mapping[str, Any]]:
    if part is None:
        return []
    steps: Sequence[Mapping[str, Any]] = part[name] if part["type"] == "Sequence" else [part]
    return steps


def _step(step: Mapping[str, Any]) -> str:
    match step:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            return "bytes"
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}:
            return "mapped"
        case {"type": "Digits", "individual_digits": True}:
            return "digits"
        case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}:
            return str(pattern)
        case _:
            return "unknown"


def _scores(model: Mapping[str, Any], tokens: Sequence[str], types: Sequence[TokenType]) -> list[float]:
    """Scores by which llama.cpp merges in the order of the tokenizer's table.

    It merges whichever neighbours make the piece with the highest score, and has no table of pairs. So all merges into
    one piece must stand together in the table, and no pair that makes a piece may be absent from it.
    """
    rank: dict[str, int] = {}
    pairs = set()
    last = ""
    for left, right in model["merges"]:
        piece = left + right
        if piece in rank and piece != last:
            raise refusal("the tokenizer merges pieces in an order that no scores of pieces have")
        rank.setdefault(piece, len(rank))
        pairs.add((left, right))
        last = piece
    vocabulary: Mapping[str, int] = model["vocab"]
    mergeable = (text for text, type in zip(tokens, types, strict=True) if type == TokenType.NORMAL)
    if any(pair not in pairs for text in mergeable for pair in _pairs(text, vocabulary)):
        raise refusal("the tokenizer does not merge every pair that makes one of its pieces")
    return [-float(rank.get(text, len(rank))) for text in tokens]


def _pairs(text: str, vocabulary: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    for at in range(1, len(text)):
        if text[:at] in vocabulary and text[at:] in vocabulary:
            yield text[:at], text[at:]


def _space(tokenizer: PreTrainedTokenizerBase, state: Mapping[str, Any]) -> bool:
    """Whether llama.cpp is to put a space before a text and behind every control token, as it does both or neither.

    Held against the tokenizer in texts that the chat template prints, as those are what the base is asked with; in
    plain texts where there is none. What begins with a space is left out: few tokenizers agree on that. Raises
    UnsupportedBase if neither is what the tokenizer does.
    """
    _require_pieces(state)
    own = Tokenizer.from_str(json.dumps({**state, "post_processor": None}))
    texts = _printed(tokenizer) or _PROBES
    for space in (True, False):
        replaced: dict[str, Any] = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
        steps = [{"type": "Prepend", "prepend": _SPACE}, replaced] if space else [replaced]
        normalizer = {"type": "Sequence", "normalizers": steps}
        theirs = {**state, "post_processor": None, "pre_tokenizer": None, "normalizer": normalizer}
        other = Tokenizer.from_str(json.dumps(theirs))
        if all(own.encode(text).ids == other.encode(text).ids for text in texts):
            return space
    raise refusal("the tokenizer puts spaces before parts of a text in a way that llama.cpp has not")


def _require_pieces(state: Mapping[str, Any]) -> None:
    known = (
        {"type": "Prepend", "prepend": _SPACE},
        {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
        {"type": "Metaspace", "replacement": _SPACE, "split": False},
        {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
    )
    steps = [*_steps(state["normalizer"], "normalizers"), *_steps(state["pre_tokenizer"], "pretokenizers")]
    for step in steps:
        if {name: value for name, value in step.items() if name != "prepend_scheme"} not in known:
            raise refusal(f"llama.cpp has no tokenizer of pieces with the step {step['type']}")
    if state["model"].get("ignore_merges"):
        raise refusal("llama.cpp has no tokenizer of pieces that takes words whole")


def _printed(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Conversations as the chat template prints them; none where there is no template, or it refuses them."""
    texts = []
    for text in _PROBES:
        messages = [{"role": role, "content": text} for role in ("user", "assistant", "user")]
        for asked in (messages[:1], messages):
            try:
                texts.append(str(tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)))
            except Exception:  # templates raise whatever their author chose, and there may be none
                return []
    return texts
