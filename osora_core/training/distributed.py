"""Training on several devices of one host: each step's rows are shared out, the vectors' gradients come together.

One process a device. The leader owns the engine: jobs, optimizer, observers, checkpoints. Followers hold the base and
its basis and nothing of any job: for a step each gets the vectors, its share of the rows and what losses are divided
by, and gives back gradients, a few megabytes a job. So a step's result is the one that a single device computes, but
for the order in which floating-point numbers are summed.

Tensors travel over `torch.distributed` (gloo between CPUs, NCCL between GPUs). What to do is a line of JSON on a
follower's standard input: an idle follower waits without a time-out, and ends when its leader does.

Whether a step has gone well, all find out together. Where memory runs out on one of them, all drop the step, and the
leader has it made again in smaller passes; what goes through the model at once is the leader's choice, the same for
all. In the middle of a sharded pass there is no way back: there all see first whether each has the memory that the
step's largest pass takes, and what goes wrong later ends the whole group.

A base that does not fit one device has its decoder layers sharded (FSDP2): every process keeps a part of each weight
and all gather the layer that they compute. Embeddings, output head and basis stay whole on every device; of a
Llama-8B-shaped base at rank 128 the basis takes 4 %. A gather takes all processes, so whenever the leader runs the
model by itself, to evaluate for instance, the followers go through it with a single token.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import timedelta
from functools import cached_property
from itertools import chain
from typing import IO, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from osora_core.bank import Bank
from osora_core.data import Example
from osora_core.free_memory import available_bytes
from osora_core.linear import use_slots
from osora_core.mix import mix_length
from osora_core.runtime import Runtime
from osora_core.training.errors import DeviceLostError
from osora_core.training.memory import Memory
from osora_core.training.passes import NOBODY, Item, Passes, Scores

logger = logging.getLogger(__name__)

T = TypeVar("T")

LEADER = 0
TIMEOUT = timedelta(minutes=5)
"""A device that takes longer than this for its part of a step hangs."""


def join(rendezvous: str, rank: int, world_size: int, device: torch.device) -> None:
    """Become one of `world_size` processes that meet at the file `rendezvous`; returns when all are there.

    Raises torch.distributed.DistError if they do not come within TIMEOUT.
    """
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=f"file://{rendezvous}",
        rank=rank,
        world_size=world_size,
        timeout=TIMEOUT,
        device_id=device if device.type == "cuda" else None,
    )
    # Until the last one is through with it, the file must stay; whoever returns from here may take it away.
    dist.barrier()


class Followers:
    """The leader's side: `streams` are the standard inputs of the followers, in the order of their ranks."""

    def __init__(self, streams: Sequence[IO[str]]) -> None:
        self._streams = streams
        self._together = False

    def __len__(self) -> int:
        return len(self._streams)

    def tell(self, messages: Sequence[dict[str, Any]]) -> None:
        """Send each follower its message. Raises OSError if one is gone."""
        for stream, message in zip(self._streams, messages, strict=True):
            stream.write(json.dumps(message) + "\n")
            stream.flush()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Meanwhile the followers run the model as often as the leader does, without being asked to come along."""
        self._together = True
        try:
            yield
        finally:
            self._together = False

    def come_along(self) -> None:
        """The leader is about to run the sharded model by itself."""
        if not self._together:
            self.tell([{"do": "come_along"}] * len(self))


class SharedPasses(Passes):
    """The leader's passes: rows are shared out by length, so that every process has about the same to do."""

    def __init__(self, runtime: Runtime, bank: Bank, token_budget: int | None, *, followers: Followers) -> None:
        super().__init__(runtime, bank, token_budget)
        self._followers = followers
        followers.tell([{"do": "make_bank", "capacity": bank.capacity}] * len(followers))

    def available_bytes(self) -> float:
        """As for one device; of all, the fewest."""
        self._followers.tell([{"do": "tell_available"}] * len(self._followers))
        return _fewest_available(self.runtime.device)

    def backward(
        self, items: Sequence[Item], slots: Sequence[int], shares: Sequence[float], own: Mapping[int, int] = NOBODY
    ) -> Tensor:
        """As for one device; the gradients that it leaves are those of all of them. Where memory runs out on one, it
        does on all."""
        ordered = sorted(items, key=lambda item: len(item[0]), reverse=True)
        held = _distinct(slots)
        mine, *others = (ordered[rank :: 1 + len(self._followers)] for rank in range(1 + len(self._followers)))
        passes = [self.groups(share, slots, own) for share in (mine, *others)]
        step = _Step(
            list(slots),
            self.bank.ranks[held].tolist(),
            [self.bank.mix_sizes.get(slot, 0) for slot in held],
            list(shares),
            list(own.items()),
            passes=max(map(len, passes)),
            needed=0 if self.runtime.is_whole else max(map(self._costs.of_pass, chain(*passes)), default=0),
        )
        with _in_touch():
            common = {"do": "backward", "step": asdict(step)}
            self._followers.tell([{**common, "rows": [_to_json(item) for item in share]} for share in others])
            dist.broadcast(self.bank.values[held], LEADER)
            for mix in _mixes(self.bank, held):
                dist.broadcast(mix, LEADER)
        with self._followers.together():
            sums = self._part(mine, step)
        with _in_touch():
            return _gather(self.bank, slots, sums)

    @torch.no_grad()
    def scores(self, items: Sequence[Item], slots: Sequence[int]) -> Scores:
        """As for one device, which the leader's is here."""
        with self._to_the_end():
            return super().scores(items, slots)

    def _part(self, items: Sequence[Item], step: "_Step") -> Tensor:
        try:
            with self._to_the_end():
                return _part(self, items, step)
        except _StepDropped as dropped:
            if dropped.ran_out:
                raise torch.OutOfMemoryError("one of the devices has run out of memory") from None
            raise dropped.cause or RuntimeError("a step has failed on another device, whose log says why") from None

    @contextmanager
    def _to_the_end(self) -> Iterator[None]:
        try:
            yield
        except _StepDropped:
            raise
        except Exception as error:
            if self.runtime.is_whole:
                raise
            raise DeviceLostError("a sharded pass cannot be left halfway") from error

    @cached_property
    def _costs(self) -> Memory:
        return Memory(self, limit=0)


def follow(runtime: Runtime, messages: IO[str]) -> None:
    """A follower's life: do what the messages say until they end."""
    passes = _own_passes(runtime, 0)
    for line in messages:
        message = json.loads(line)
        if message["do"] == "make_bank":
            passes = _own_passes(runtime, message["capacity"])
            continue
        if message["do"] == "tell_available":
            _fewest_available(runtime.device)
            continue
        if message["do"] == "come_along":
            _idle_pass(passes)
            continue
        step = _Step(**message["step"])
        held = _distinct(step.slots)
        _receive(passes.bank, held, step)
        try:
            sums = _part(passes, [_from_json(row) for row in message["rows"]], step)
        except _StepDropped as dropped:
            if dropped.cause is not None:
                logger.warning("a step is dropped: %s: %s", type(dropped.cause).__name__, dropped.cause)
            passes.bank.drop_grads()
            if runtime.device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        _gather(passes.bank, step.slots, sums)


def _mixes(bank: Bank, held: Sequence[int]) -> list[Tensor]:
    """Of those slots that have one, each [M]."""
    return [bank.mixes[slot].detach() for slot in held if slot in bank.mixes]


def _receive(bank: Bank, held: Sequence[int], step: "_Step") -> None:
    """Have in a follower's bank what lies in these slots of the leader's, and no mix of any other."""
    for slot in bank.mixes.keys() - set(held):
        bank.write(slot, torch.zeros(bank.values.shape[1]), rank=0)
    values = torch.empty_like(bank.values[held])
    dist.broadcast(values, LEADER)
    for slot, row, rank, mix in zip(held, values, step.ranks, step.mixes, strict=True):
        if not mix:
            bank.write(slot, row, rank)
        elif bank.mix_sizes.get(slot) == mix:
            bank.write(slot, torch.cat([row, bank.mixes[slot].detach()]), rank, mix)
        else:
            bank.write(slot, torch.cat([row, row.new_zeros(mix_length(bank.basis.spans, mix))]), rank, mix)
    for own in _mixes(bank, held):
        dist.broadcast(own, LEADER)


def _own_passes(runtime: Runtime, capacity: int) -> Passes:
    return Passes(runtime, Bank(runtime.basis, capacity, device=runtime.device, trainable=True))


@dataclass(frozen=True)
class _Step:
    """What all must know of a step: whose rows come (`slots`, with the `ranks` of each that is there and the sizes of
    its `mixes`, 0 for none), `shares` and `own` as in `Passes.backward`; as many passes as the one with the most makes,
    the largest of which takes `needed` bytes of a sharded base's devices."""

    slots: list[int]
    ranks: list[int]
    mixes: list[int]
    shares: list[float]
    own: list[tuple[int, int]]
    passes: int
    needed: int


class _StepDropped(Exception):
    """Nobody has a result of this step: memory has run out on a device, or else something has gone wrong on one, of
    which that one knows the `cause`."""

    def __init__(self, ran_out: bool, cause: Exception | None) -> None:
        super().__init__()
        self.ran_out = ran_out
        self.cause = cause


def _part(passes: Passes, items: Sequence[Item], step: _Step) -> Tensor:
    """One process's part of a step. Raises _StepDropped on all if it cannot be made on one."""
    device = passes.runtime.device
    if passes.runtime.is_whole:
        return _agreed(lambda: _run(passes, items, step), device)
    _agreed(lambda: _require(step.needed, device), device)
    return _run(passes, items, step)


def _require(size: int, device: torch.device) -> None:
    """Raises OutOfMemoryError unless so many bytes are there, if not in one piece: a pass does not need them so."""
    if available_bytes(device) < size:
        raise torch.OutOfMemoryError(f"a pass takes {size} bytes, and fewer are left")


def _agreed(action: Callable[[], T], device: torch.device) -> T:
    """What `action` returns, if it returns on all devices. Raises _StepDropped on all if it does not."""
    failure: Exception | None = None
    try:
        result = action()
    except Exception as error:
        failure = error.with_traceback(None)  # its frames hold tensors
    ran_out = isinstance(failure, torch.OutOfMemoryError)
    with _in_touch():
        told = torch.tensor([ran_out, failure is not None and not ran_out], dtype=torch.int32, device=device)
        dist.all_reduce(told, dist.ReduceOp.MAX)
    anybody_ran_out, anybody_failed = told.tolist()
    if anybody_ran_out or anybody_failed:
        raise _StepDropped(not anybody_failed, failure)
    return result


def _run(passes: Passes, items: Sequence[Item], step: _Step) -> Tensor:
    """All passes of one process's part: as many as the others make, for the sake of gathers."""
    own = dict(step.own)
    sums = Passes.backward(passes, items, step.slots, step.shares, own)
    for _ in range(step.passes - len(passes.groups(items, step.slots, own))):
        _idle_pass(passes, backward=True)
    return sums


@contextmanager
def _in_touch() -> Iterator[None]:
    """Meanwhile the processes talk. Raises DeviceLostError if one does not."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise DeviceLostError(f"the devices of this worker have lost touch: {error}") from error


def _fewest_available(device: torch.device) -> float:
    """Of all processes', each of which must call this; those on a CPU have the machine's memory in common."""
    own = available_bytes(device) / (dist.get_world_size() if device.type == "cpu" else 1)
    told = torch.tensor(own, dtype=torch.float64, device=device)
    dist.all_reduce(told, dist.ReduceOp.MIN)
    return told.item()


def _idle_pass(passes: Passes, *, backward: bool = False) -> None:
    """Run the model for the others' sake, on one token and the bare base."""
    runtime = passes.runtime
    zero = torch.zeros(1, 1, dtype=torch.long, device=runtime.device)
    with torch.set_grad_enabled(backward), use_slots(passes.bank, zero[0]):
        hidden = runtime.hidden_states(zero)
    if backward:
        (0 * hidden.sum()).backward()  # type: ignore[no-untyped-call]


def _gather(bank: Bank, slots: Sequence[int], sums: Tensor) -> Tensor:
    """Add up gradients and sums [2, jobs] of all processes on the leader; returns its sums."""
    grads, held = bank.take_grads(), _distinct(slots)
    left = bank.take_mix_grads()
    of_mixes = {slot: left.get(slot, torch.zeros_like(bank.mixes[slot])) for slot in held if slot in bank.mixes}
    whole = torch.cat([grads[held].flatten(), *of_mixes.values(), sums.flatten()])
    dist.reduce(whole, LEADER)
    if dist.get_rank() == LEADER:
        sizes = [grads[held].numel(), *map(len, of_mixes.values()), sums.numel()]
        vectors, *mixes, _ = torch.split(whole, sizes)
        grads[held] = vectors.view(len(held), -1)
        bank.put_grads(grads, dict(zip(of_mixes, mixes, strict=True)))
    return whole[-sums.numel() :].view_as(sums)


def _distinct(slots: Sequence[int]) -> list[int]:
    """Each slot once: one may have several shares in a step."""
    return list(dict.fromkeys(slots))


def _to_json(item: Item) -> list[Any]:
    example, owner = item
    return [example.tokens, [int(counts) for counts in example.mask], example.line, owner]


def _from_json(row: list[Any]) -> Item:
    tokens, mask, line, owner = row
    return Example(tuple(tokens), tuple(map(bool, mask)), line), owner


@dataclass(frozen=True)
class ShardedRuntime(Runtime):
    """A runtime whose decoder layers are spread over processes. `before_forward` is called before each run of it;
    `layer_bytes` are the whole of the largest layer's."""

    before_forward: Callable[[], None] = field(default=lambda: None)
    layer_bytes: int = 0

    @property
    def is_whole(self) -> bool:
        return False

    @property
    def gathered_bytes(self) -> int:
        return self.layer_bytes

    def hidden_states(self, input_ids: Tensor, **kwargs: Any) -> Tensor:
        self.before_forward()
        return super().hidden_states(input_ids, **kwargs)


def shard(runtime: Runtime, device: torch.device, before_forward: Callable[[], None] = lambda: None) -> ShardedRuntime:
    """Spread a base that lies in host memory over the devices of all joined processes; each must call this.

    `device` is this process's own. The leader's `before_forward` is `Followers.come_along`.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    model: Any = runtime.model
    layer_bytes = max(sum(p.nbytes for p in layer.parameters()) for layer in model.base_model.layers)
    for layer in model.base_model.layers:
        # Each layer is gathered for its own forward and backward and given up after it.
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    # What is not sharded: embeddings, final norm, output head.
    for module in (model.base_model.embed_tokens, model.base_model.norm, model.get_output_embeddings()):
        module.to(device)
    if hasattr(model.base_model, "rotary_emb"):
        model.base_model.rotary_emb.to(device)
    own = {f.name: getattr(runtime, f.name) for f in fields(Runtime)}
    return ShardedRuntime(**{**own, "device": device}, before_forward=before_forward, layer_bytes=layer_bytes)
