"""One resident base: model, tokenizer and basis in a process. Engines borrow it; nothing ever rewrites its weights."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from osora_common.ranks import Rank, installed_rank
from osora_core import attention, base_check, base_models
from osora_core.basis import Basis, BasisCache, Progress
from osora_core.basis_log import BasisLog
from osora_core.cores import available_cores
from osora_core.data.conversation import conversations_of
from osora_core.errors import OsoraCoreError, UnsupportedBase, UserError
from osora_core.linear import OsoraLinear
from osora_core.out_of_memory import is_out_of_memory, refusing_to_run_out, require_room
from osora_core.weights import ALL_LINEAR, find_targets


@dataclass(frozen=True)
class Runtime:
    """A base ready for both engines. `model`'s targeted linears are OsoraLinear; without slots it is the bare base.

    max_length: tokens of the longest text that it is trained on or asked with, see `usable_length`.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    basis: Basis
    device: torch.device
    max_length: int
    eos_ids: frozenset[int]

    @classmethod
    def load(
        cls, name: str, cache: BasisCache, *, path: str | None = None, device: str = "auto",
        rank: Rank | Literal["auto"] = "auto", dtype: torch.dtype | None = None,
        progress: Progress = lambda done, total: None,
    ) -> "Runtime":  # fmt: skip
        """Load base `name` (from `path` where that differs) and its all-linear basis of `rank`.

        device: "auto" (CUDA where there is one), "cpu" or "cuda". rank: a number, "full", or "auto" for the default of
        a base of this size. dtype: of the weights, by default float32 on a CPU and bfloat16 on a GPU. progress: told of
        each weight of a basis that is computed, as the log is. Raises UnknownBase if the base is not found, UserError
        if its architecture is not supported and MemoryTooSmall if it takes more than is free.
        """
        place = torch.device(
            "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")
        )
        if place.type == "cuda" and not torch.cuda.is_available():
            raise UserError(
                f"the device is {device!r}, and torch finds no GPU here",
                param="device",
                next_action="choose `cpu` or `auto`, or install a torch for this machine's GPU and its driver",
            )
        dtype = dtype or (torch.bfloat16 if place.type == "cuda" else torch.float32)
        source = base_models.look_up(path or name)
        require_room(name, source, dtype, place)
        attention.register()
        with _loading(source):
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        max_length = usable_length(config)
        tokenizer = load_tokenizer(source)
        loading = base_check.refusing(name, config, "loading", (OSError, ValueError, SafetensorError))
        with _loading(source), refusing_to_run_out(f"the base {name!r}"), loading:
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                source,
                config=config,
                dtype=dtype,
                attn_implementation=attention.NAME,
                trust_remote_code=False,
                use_safetensors=True,
            )
        model = model.to(place).eval().requires_grad_(False)  # type: ignore[arg-type]
        bare = base_check.Bare(name, model, place, max_length)
        log = BasisLog(name)

        def told(done: int, total: int) -> None:
            log(done, total)
            progress(done, total)

        basis = cache.get(
            model,
            ALL_LINEAR,
            installed_rank(rank, sum(p.numel() for p in model.parameters())),
            place,
            before=lambda: base_check.check_attention(bare),
            progress=told,
        )
        install(model, basis)
        runtime = cls(
            name=name,
            model=model,
            tokenizer=tokenizer,
            basis=basis,
            device=place,
            max_length=max_length,
            eos_ids=_eos_ids(model, tokenizer),
        )
        base_check.remembered(runtime, cache.directory, "training", lambda: base_check.check_training(runtime))
        return runtime

    def hidden_states(self, input_ids: Tensor, **kwargs: Any) -> Tensor:
        """Last hidden states [B, T, d] of tokens [B, T]: the decoder without its output head."""
        output = self.model.base_model(input_ids=input_ids, use_cache=False, **kwargs)
        hidden: Tensor = output.last_hidden_state
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocabulary] of hidden states [..., d]."""
        head = self.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        logits: Tensor = head(hidden)
        if (factor := _logit_factor(self.config)) != 1:
            logits = logits * factor
        if softcap := getattr(self.config, "final_logit_softcapping", None):
            logits = (logits / softcap).tanh() * softcap
        return logits

    @property
    def config(self) -> PreTrainedConfig:
        """The text model's configuration: of a model that also reads images, the part that is about text."""
        config: PreTrainedConfig = self.model.config.get_text_config()
        return config

    @property
    def public_name(self) -> str:
        """What its adapters call it, see `base_models.public_name`."""
        return base_models.public_name(self.name, self.model.name_or_path or "")

    @property
    def is_whole(self) -> bool:
        """Whether this process holds all of the weights. Code that reads them by itself must ask."""
        return True

    @property
    def gathered_bytes(self) -> int:
        """Bytes of the largest part of the weights that is fetched from other devices when its turn comes."""
        return 0

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @property
    def bytes(self) -> int:
        """Bytes of the weights as they lie in memory."""
        return sum(p.numel() * p.element_size() for p in self.model.parameters())


@contextmanager
def _loading(source: str) -> Iterator[None]:
    """What transformers says of a base that it cannot load, in one sentence."""
    try:
        yield
    except OsoraCoreError:  # says itself what is wrong
        raise
    except Exception as error:  # what a configuration says wrongly shows as an error of any kind
        if is_out_of_memory(error):
            raise
        kind = "" if isinstance(error, OSError | ValueError | SafetensorError) else f"{type(error).__name__}: "
        raise UserError(
            f"the base model {source!r} cannot be loaded: {kind}{_first_sentence(error)}",
            param="model",
            next_action="name a bundled base, a directory or a hub id with a causal language model as safetensors",
        ) from error


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).partition(". ")[0]


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a base in `source`, a directory or a hub id. Raises UserError."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # what a file lacks, or has too much of, shows as an error of any kind
        raise UserError(
            f"the tokenizer of the base model {source!r} cannot be loaded: {_first_sentence(error)[:200]}",
            param="model",
            next_action="put the base's own tokenizer.json and tokenizer_config.json beside its config.json",
        ) from error
    return tokenizer


def _logit_factor(config: PreTrainedConfig) -> float:
    """What a family multiplies its logits by: under one of these names, divided by the first."""
    divisor = getattr(config, "logits_scaling", None) or 1.0
    return (
        float(getattr(config, "logit_scale", None) or 1.0) * float(getattr(config, "lm_head_multiplier", 1.0)) / divisor
    )


def usable_length(config: PreTrainedConfig) -> int:
    """Tokens of the longest text that a base reads. Raises UnsupportedBase if it does not say.

    Where rotary embeddings change with a text's length (dynamic, longrope), a cache would hold keys of a shorter text:
    such a base reads as far as they stay the same.
    """
    config = config.get_text_config()
    names = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length", "n_ctx")
    lengths = (getattr(config, name, None) for name in names)
    longest = next((length for length in lengths if isinstance(length, int) and length > 0), None)
    if longest is None:
        raise UnsupportedBase(
            f"a base of the family {config.model_type!r} does not say how many tokens it reads",
            param="model",
            next_action=base_check.NEXT,
        )
    rotary = getattr(config, "rope_parameters", None) or {}
    if rotary.get("rope_type") in ("dynamic", "longrope"):
        return min(longest, int(rotary.get("original_max_position_embeddings") or longest))
    return longest


def install(model: nn.Module, basis: Basis) -> None:
    """Replace the linears that `basis` covers by OsoraLinear, in the basis's order."""
    modules = find_targets(model, basis.target_modules)
    for index, (name, factors) in enumerate(basis.factors.items()):
        parent_name, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent_name), child, OsoraLinear(modules[name], factors, index))


def _eos_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every token that ends a generation: the model's own, the tokenizer's, and the chat template's end of turn, which
    is what training teaches an answer to end with."""
    config = model.generation_config
    ids = config.eos_token_id if config is not None else None
    listed = {ids} if isinstance(ids, int) else set(ids or ())
    return frozenset(listed | ({tokenizer.eos_token_id, conversations_of(tokenizer).end_of_turn} - {None}))


def set_threads(count: int | None = None) -> None:
    """Let the calling thread compute on `count` cores, or on all that this process may use ($OMP_NUM_THREADS, if set).

    A process should compute on one thread alone: OpenMP keeps a team for every thread that ever did, and once there
    are more of them than cores it puts them to sleep between operations, which costs small models almost half their
    speed. So load a base under `set_threads(1)` and call `set_threads()` at the top of the engine's thread.
    """
    torch.set_num_threads(count or threads())


def threads() -> int:
    """The cores that this process may use; $OMP_NUM_THREADS if that is set."""
    return int(os.environ.get("OMP_NUM_THREADS", 0)) or available_cores()
