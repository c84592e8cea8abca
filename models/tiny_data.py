"""Texts, tokenizer and rows of tokens for the training of osora-tiny (see train_tiny.py)."""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import re
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_TEXT, TURN_START, TURN_END, PAD = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"
SPECIAL_TOKENS = [END_OF_TEXT, TURN_START, TURN_END, PAD]  # ids 0, 1, 2, 3
VOCAB_SIZE = 4096
CONTEXT = 1024
Stream = np.ndarray[tuple[int], np.dtype[np.int16]]


def log(message: str) -> None:
    """Print at once, since the output is often watched through a pipe."""
    print(message, flush=True)


def read_documents(paths: Iterable[Path]) -> list[str]:
    """Split every file at its end-of-text marks, which separate texts and conversations alike."""
    documents: list[str] = []
    for path in paths:
        opener = lzma.open if path.suffix == ".xz" else open
        with opener(path, "rt", encoding="utf-8", newline="") as file:
            content = str(file.read())
        documents += [part for part in content.split(END_OF_TEXT) if part.strip()]
    return documents


def train_tokenizer(documents: Iterable[str]) -> Tokenizer:
    """Learn a byte-level BPE; bytes as the alphabet make any UTF-8 text round-trip.

    The marks are cut out first: left in, merges would be spent on spelling them.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    marks = re.compile("|".join(re.escape(token) for token in SPECIAL_TOKENS))
    pieces = (piece for text in documents for piece in marks.split(text) if piece)
    tokenizer.train_from_iterator(pieces, trainer)
    if tokenizer.get_vocab_size() != VOCAB_SIZE:
        raise SystemExit(f"the text is too small: it gave {tokenizer.get_vocab_size()} pieces only")
    return tokenizer


def encode(tokenizer: Tokenizer, documents: list[str], batch: int = 2048) -> Stream:
    """Turn documents into one token stream, each ended by the end-of-text token.

    Sixteen-bit signed integers hold every id of this vocabulary at a quarter of the memory and,
    unlike unsigned ones, can be indexed on every device.
    """
    end = np.array([tokenizer.token_to_id(END_OF_TEXT)], dtype=np.int16)
    parts: list[Stream] = []
    for first in range(0, len(documents), batch):
        for encoding in tokenizer.encode_batch_fast(documents[first : first + batch]):
            parts += [np.array(encoding.ids, dtype=np.int16), end]
    return np.concatenate(parts)


def cache_folder(args: argparse.Namespace) -> Path | None:
    """Name the cache after the inputs, so that other data can never be mistaken for these."""
    if args.cache is None:
        return None
    files = [(p.name, p.stat().st_size) for p in (*args.text, *args.chat, args.val, args.cval)]
    key = json.dumps([VOCAB_SIZE, SPECIAL_TOKENS, files])
    return Path(args.cache) / hashlib.sha256(key.encode()).hexdigest()[:12]


def prepare(args: argparse.Namespace) -> tuple[Tokenizer, dict[str, Stream], dict[str, float]]:
    """Give the tokenizer, the token streams and the bytes per token of each stream."""
    folder = cache_folder(args)
    if folder is not None and (folder / "done.json").exists():
        streams = {name: np.load(folder / f"{name}.npy") for name in ("text", "chat", "val", "cval")}
        log(f"read tokenizer and tokens from {folder}")
        density = json.loads((folder / "done.json").read_text())
        return Tokenizer.from_file(str(folder / "tokenizer.json")), streams, density
    started = time.monotonic()
    sources = {"text": args.text, "chat": args.chat, "val": [args.val], "cval": [args.cval]}
    documents = {name: read_documents(paths) for name, paths in sources.items()}
    counts = {name: len(found) for name, found in documents.items()}
    log(f"read documents {counts} in {time.monotonic() - started:.1f} s")
    tokenizer = train_tokenizer(documents["text"] + documents["chat"])
    log(f"tokenizer trained at {time.monotonic() - started:.1f} s")
    streams = {name: encode(tokenizer, found) for name, found in documents.items()}
    density = {
        name: sum(len(text.encode()) for text in found) / (len(streams[name]) - len(found))
        for name, found in documents.items()
    }
    sizes = {name: f"{len(s):,} tokens, {density[name]:.3f} bytes each" for name, s in streams.items()}
    log(f"encoded {sizes} at {time.monotonic() - started:.1f} s")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(folder / "tokenizer.json"))
        for name, stream in streams.items():
            np.save(folder / f"{name}.npy", stream)
        (folder / "done.json").write_text(json.dumps(density))  # last: marks the cache complete
    return tokenizer, streams, density


class Rows:
    """Serve rows of CONTEXT + 1 tokens; one pass covers the stream before any part comes again.

    Each pass cuts the stream at a new random offset and shuffles the rows. With ``align_share``
    that share of the rows is moved back to the start of the document they begin in, because
    a chat prompt always stands at position 0.
    """

    def __init__(self, stream: Stream, device: torch.device, seed: int, align_share: float) -> None:
        if len(stream) < 2 * CONTEXT + 1:
            raise SystemExit(f"a training stream has {len(stream)} tokens; it needs {2 * CONTEXT + 1}")
        self.tokens = torch.from_numpy(stream).to(device)
        self.span = torch.arange(CONTEXT + 1, device=device)
        self.random = np.random.default_rng(seed)
        self.align_share = align_share
        ends = np.flatnonzero(stream == SPECIAL_TOKENS.index(END_OF_TEXT))
        self.document_starts = np.concatenate([[0], ends[:-1] + 1])
        self.starts = self._shuffled_pass()
        self.passes = 0.0

    def _shuffled_pass(self) -> torch.Tensor:
        offset = int(self.random.integers(CONTEXT))
        starts = np.arange(offset, len(self.tokens) - CONTEXT, CONTEXT)
        index = np.searchsorted(self.document_starts, starts, side="right") - 1
        align = self.random.random(len(starts)) < self.align_share
        starts = np.where(align, self.document_starts[index], starts)
        self.random.shuffle(starts)
        return torch.from_numpy(starts).to(self.tokens.device)

    def take(self, count: int) -> torch.Tensor:
        """Gather the next ``count`` rows where the tokens live."""
        self.passes += count * CONTEXT / len(self.tokens)
        while len(self.starts) < count:
            self.starts = torch.cat([self.starts, self._shuffled_pass()])
        chosen, self.starts = self.starts[:count], self.starts[count:]
        return self.tokens[chosen[:, None] + self.span].long()
