"""Train the bundled base model osora-tiny, tokenizer included, from text files.

    python models/train_tiny.py --text text.txt.xz --chat chat.txt.xz \
        --val val.txt.xz --cval cval.txt.xz --out models/osora-tiny \
        --device cuda --minutes 6.5

The model is a 7M-parameter Llama with tied embeddings and a 4,096-piece byte-level BPE.
Hidden matrices are trained with Muon (orthogonalised momentum), everything else with AdamW.
Nothing is downloaded; all inputs are files named on the command line.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tiny_data import (
    CONTEXT,
    END_OF_TEXT,
    PAD,
    SPECIAL_TOKENS,
    TURN_END,
    VOCAB_SIZE,
    Rows,
    Stream,
    log,
    prepare,
)
from tiny_optim import TIMED_STEPS, Optimiser, Plan
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

LOG_SECONDS = 10.0

# The layout is exactly that of the chat files: a turn per message, a newline after each turn.
# The generation block lets return_assistant_tokens_mask find what the assistant has to say,
# its end-of-turn token included, so that fine-tuning teaches the model to stop.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}"
    "{%- else -%}{{- message['content'] + '<|im_end|>' -}}{%- endif -%}"
    "{{- '\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


# --- model ----------------------------------------------------------------------------------


def build_model() -> LlamaForCausalLM:
    """Create the untrained model; what writes to the residual stream starts smaller, as in GPT-2."""
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=SPECIAL_TOKENS.index(TURN_END),
        pad_token_id=SPECIAL_TOKENS.index(PAD),
    )
    config._attn_implementation = "sdpa"
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.mul_(1 / math.sqrt(2 * config.num_hidden_layers))
    return model


def make_loss(model: Any, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """Give the mean next-token loss of full rows as one graph.

    The layers are called directly: rows have no padding, so no mask is built, attention keeps
    its fast causal kernel, and the rotary tables are computed once.
    """
    core = model.model
    positions = torch.arange(CONTEXT, device=device)[None]
    rotary = core.rotary_emb(torch.empty(0, device=device), positions)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        hidden = core.embed_tokens(rows[:, :-1])
        for layer in core.layers:
            hidden = layer(hidden, attention_mask=None, position_embeddings=rotary)
        logits = F.linear(core.norm(hidden), core.embed_tokens.weight)
        targets = rows[:, 1:].flatten()
        return F.cross_entropy(logits.float().flatten(0, 1), targets)

    return loss


@torch.no_grad()
def evaluate(model: Any, stream: Stream, device: torch.device, limit: int | None = None) -> float:
    """Mean nats per token over non-overlapping windows of CONTEXT tokens, by the plain forward."""
    count = len(stream) // CONTEXT
    windows = torch.from_numpy(stream[: count * CONTEXT]).view(count, CONTEXT)[:limit]
    total = 0.0
    for part in torch.split(windows, 16):
        ids = part.to(device).long()
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        total += float(F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum"))
    return total / (len(windows) * (CONTEXT - 1))


# --- the run --------------------------------------------------------------------------------


class Run:
    """One training run: the rows it draws from, the model, and what it reports on the way."""

    def __init__(self, args: argparse.Namespace, streams: dict[str, Stream]) -> None:
        self.args, self.streams = args, streams
        self.device = torch.device(args.device)
        self.random = random.Random(args.seed)
        self.text = Rows(streams["text"], self.device, args.seed, align_share=0.0)
        self.chat = Rows(streams["chat"], self.device, args.seed + 1, align_share=0.5)
        self.model = build_model().to(self.device)  # type: ignore[arg-type]
        self.optimiser = Optimiser(self.model, args, args.compile)
        loss = make_loss(self.model, self.device)
        self.loss = torch.compile(loss, dynamic=False) if args.compile else loss
        self.plan = Plan(args)
        self.curve: list[dict[str, float]] = []

    def batch(self, done: int) -> torch.Tensor:
        """Mix text and chat; chat weighs more at the end, where the rate falls."""
        args, late = self.args, self.plan.progress(done) >= 0.75
        share = args.chat_share_late if late else args.chat_share
        rows = args.tokens_per_step // CONTEXT
        chat = int(share * rows + self.random.random())  # rounded at random: right on average
        parts = [self.text.take(rows - chat), self.chat.take(chat)]
        return torch.cat(parts)

    def step(self, done: int) -> torch.Tensor:
        """One update; the loss stays on the device so that nothing waits for it."""
        rows = self.batch(done)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            loss = self.loss(rows)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step(self.plan.rate_factor(done))
        return loss.detach()

    def report(self, done: int, loss: float, since: tuple[int, float]) -> None:
        """Log progress; stop a run that has left the finite numbers."""
        if not math.isfinite(loss):
            raise SystemExit(f"the loss is {loss} at step {done}: try a lower --muon-lr or --lr")
        now = time.monotonic()
        speed = (done - since[0]) * self.args.tokens_per_step / max(now - since[1], 1e-9)
        log(
            f"step {done}/{self.plan.total or '?'} loss {loss:.3f} {speed:,.0f} tokens/s "
            f"rate x{self.plan.rate_factor(done):.2f} {now - self.plan.started:.0f} s"
        )

    def check(self, done: int) -> None:
        """Evaluate a part of the held-out windows, so that the log shows where the run stands."""
        limit = self.args.eval_windows
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            val, cval = (evaluate(self.model, self.streams[name], self.device, limit) for name in ("val", "cval"))
        log(f"step {done} val {val:.4f} cval {cval:.4f} (first {limit} windows)")
        self.curve.append({"step": done, "val": round(val, 4), "cval": round(cval, 4)})

    def train(self) -> dict[str, Any]:
        """Run to the planned end and say how long it was."""
        done, checks = 0, [0.1, 0.25, 0.5, 0.75, 0.9]
        since = (0, time.monotonic())
        while self.plan.total is None or done < self.plan.total:
            loss = self.step(done)
            done += 1
            if done in TIMED_STEPS or time.monotonic() - since[1] >= LOG_SECONDS:
                value = loss.item()  # waits for the device, so the times below are true
                self.plan.fit(done)
                self.report(done, value, since)
                since = (done, time.monotonic())
            if checks and self.plan.total and self.plan.progress(done) >= checks[0]:
                checks.pop(0)
                self.check(done)
        self.report(done, loss.item(), since)
        return {
            "steps": done,
            "tokens_seen": done * (self.args.tokens_per_step // CONTEXT) * CONTEXT,
            "train_seconds": round(time.monotonic() - self.plan.started, 1),
            "passes": {"text": round(self.text.passes, 2), "chat": round(self.chat.passes, 2)},
            "curve": self.curve,
        }


# --- results --------------------------------------------------------------------------------


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, out: Path) -> None:
    """Write what from_pretrained reads, weights rounded to bfloat16."""
    wrapped = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=PAD,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    stops = [SPECIAL_TOKENS.index(TURN_END), SPECIAL_TOKENS.index(END_OF_TEXT)]
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        eos_token_id=stops, pad_token_id=SPECIAL_TOKENS.index(PAD)
    )
    model.to(torch.bfloat16).save_pretrained(out)  # type: ignore[arg-type]
    wrapped.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # some writers make it private to the user


def samples(model: Any, tokenizer: Any, device: torch.device) -> dict[str, str]:
    """Let the finished model speak: one greedy answer and one sampled story."""
    question = [{"role": "user", "content": "I want to book a table for two people tonight."}]
    chat = tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    torch.manual_seed(0)
    spoken = {}
    for name, prompt, options in (
        ("chat", chat, {"do_sample": False, "max_new_tokens": 80}),
        ("story", "Once upon a time", {"do_sample": True, "temperature": 0.7, "top_p": 0.9,
                                       "max_new_tokens": 160}),
    ):  # fmt: skip
        inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).to(device)
        output = model.generate(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, **options)
        spoken[name] = tokenizer.decode(output[0, inputs.input_ids.shape[1] :])
        log(f"--- {name}\n{prompt}>>>{spoken[name]}")
    return spoken


def finish(run: Run, tokenizer: Tokenizer, facts: dict[str, Any], out: Path) -> None:
    """Evaluate before and after rounding, save, read the files back and write training.json.

    The second figure comes from the files as a user loads them, in float32 arithmetic and
    through the library's own forward, so it also proves that what was trained was saved.
    """
    args, device, streams = run.args, run.device, run.streams
    with torch.autocast(device.type, dtype=torch.bfloat16):
        trained = {n: round(evaluate(run.model, streams[n], device), 4) for n in ("val", "cval")}
    save(run.model, tokenizer, out)
    loaded: Any = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    loaded = loaded.to(device).eval()
    rounded = {n: round(evaluate(loaded, streams[n], device), 4) for n in ("val", "cval")}
    log(f"nats per token: trained {trained}, saved as bfloat16 {rounded}")
    recipe = {k: v for k, v in vars(args).items() if k not in ("out", "cache")}
    for key in ("text", "chat", "val", "cval"):
        recipe[key] = [p.name for p in recipe[key]] if key in ("text", "chat") else recipe[key].name
    card = {
        "recipe": recipe,
        **facts,
        "nats_per_token": {"trained": trained, "bfloat16": rounded},
        "parameters": sum(w.numel() for w in loaded.parameters()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "samples": samples(loaded, AutoTokenizer.from_pretrained(out), device),
    }
    (out / "training.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")


# --- command line ---------------------------------------------------------------------------


def parse_arguments() -> argparse.Namespace:
    """Read and check the command line; every fault is found before any work begins."""
    parser = argparse.ArgumentParser(description="Train osora-tiny from text files.")
    add = parser.add_argument
    add("--text", type=Path, nargs="+", required=True, help="plain text, .txt or .txt.xz")
    add("--chat", type=Path, nargs="+", required=True, help="conversations in ChatML")
    add("--val", type=Path, required=True, help="held-out text")
    add("--cval", type=Path, required=True, help="held-out conversations")
    add("--out", type=Path, default=Path(__file__).parent / "osora-tiny")
    add("--cache", type=Path, help="keep tokenizer and tokens here for further runs")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--minutes", type=float, default=6.5, help="length of the training loop, compilation too")
    add("--steps", type=int, help="number of updates, instead of --minutes")
    add("--tokens-per-step", type=int, default=65536)
    add("--optimizer", choices=("muon", "adamw"), default="muon")
    add("--muon-lr", type=float, default=5e-3, help="peak rate of the layers' matrices")
    add("--lr", type=float, default=3e-3, help="peak rate of what AdamW trains")
    add("--weight-decay", type=float, default=0.1)
    add("--warmup", type=int, default=200, help="steps, at most a fifth of the run")
    add("--decay", type=float, default=0.6, help="last part of the run in which the rate falls")
    add("--chat-share", type=float, default=0.12, help="share of chat rows")
    add("--chat-share-late", type=float, default=0.35, help="the same in the last quarter")
    add("--eval-windows", type=int, default=64, help="windows of the evaluations on the way")
    add("--seed", type=int, default=0)
    add("--no-compile", dest="compile", action="store_false")
    args = parser.parse_args()
    for path in (*args.text, *args.chat, args.val, args.cval):
        if not path.is_file():
            parser.error(f"no such file: {path}")
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("--device cuda, but torch sees no CUDA device")
    for name in ("minutes", "tokens_per_step", "lr", "muon_lr", "decay", "eval_windows"):
        if getattr(args, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be positive")
    if args.steps is not None and args.steps < 1:
        parser.error("--steps must be at least 1")
    if args.tokens_per_step % CONTEXT:
        parser.error(f"--tokens-per-step must be a multiple of {CONTEXT}")
    if args.decay > 1 or not (0 <= args.chat_share <= 1 and 0 <= args.chat_share_late <= 1):
        parser.error("--decay and the chat shares are parts of 1")
    return args


def main() -> None:
    """Prepare, train, save."""
    args = parse_arguments()
    started = time.monotonic()
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer, streams, density = prepare(args)
    facts: dict[str, Any] = {
        "tokens": {name: len(stream) for name, stream in streams.items()},
        "bytes_per_token": {name: round(value, 4) for name, value in density.items()},
        "prepare_seconds": round(time.monotonic() - started, 1),
    }
    run = Run(args, streams)
    log(f"training {sum(w.numel() for w in run.model.parameters()):,} parameters on {args.device}")
    facts |= run.train()
    finish(run, tokenizer, facts, args.out)
    log(f"wrote {args.out} after {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
