"""Who this rank is, and how it talks to the others."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from orchestrator.errors import LaunchError, Problem

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
_FIX = "start the ranks with torchrun, or set none of its variables"


@dataclass(frozen=True)
class World:
    """One rank among `world_size`, as torchrun's environment says; the node's rank is torchrun's GROUP_RANK."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    node_rank: int

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> World:
        """The world that `env` describes: all of torchrun's variables, or none of them for a world of one.

        Raises LaunchError naming the variables that are missing, or the one that is no number.
        """
        missing = [name for name in _VARIABLES if name not in env]
        if len(missing) == len(_VARIABLES):
            return cls(0, 1, 0, 1, 0)
        if missing:
            what = f"{', '.join(missing)} not set, though {next(name for name in _VARIABLES if name in env)} is"
            raise LaunchError(Problem("environment", what, _FIX))
        return cls(*(_number(env, name) for name in _VARIABLES[:5]))

    def device(self, accelerator: Literal["cuda", "cpu"]) -> torch.device:
        """This rank's device. Raises LaunchError when there is no such GPU: nothing falls back silently."""
        if accelerator == "cpu":
            return torch.device("cpu")
        if self.local_rank >= torch.cuda.device_count():
            what = f"rank {self.rank} wants GPU {self.local_rank}, and torch sees {torch.cuda.device_count()}"
            raise LaunchError(Problem("accelerator", what, "check the driver and the job's GPU request"))
        return torch.device("cuda", self.local_rank)

    @contextlib.contextmanager
    def connected(self, device: torch.device, *, store: dist.Store | None = None) -> Iterator[Peers]:  # type: ignore[name-defined]
        """The process group of all ranks: nccl on GPUs, gloo on CPUs. A world of one needs no environment for it.

        They meet at `store`, or else at the address in the environment.

        After an error it is left as it is: taking it down could wait for ranks that no longer answer.
        """
        backend = "nccl" if device.type == "cuda" else "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if store is None and self.world_size == 1:
            store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.world_size)
        yield Peers(self, device)
        dist.barrier()
        _keep_for_ever(dist.group.WORLD)
        dist.destroy_process_group()


def _keep_for_ever(group: object) -> None:
    """Never let Python take `group` down, not even at its end.

    Its destructor waits, with Python's lock held, for a thread of gloo's that may just want that lock to forget the
    barrier above: one end in some tens hung so (torch 2.13, seen as ~Reducer -> ~ProcessGroupGloo -> mutex).
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))


def _number(env: Mapping[str, str], name: str) -> int:
    try:
        return int(env[name])
    except ValueError:
        raise LaunchError(Problem("environment", f"{name}={env[name]!r} is not a number", _FIX)) from None


@dataclass(frozen=True)
class PendingSum:
    """A sum over all ranks on its way."""

    _vector: torch.Tensor
    _work: dist.Work | None
    """None for a rank alone."""

    def is_ready(self) -> bool:
        """Whether the result can be had without waiting for anybody."""
        return self._work is None or self._work.is_completed()

    def result(self) -> list[float]:
        """The sums; waits for them."""
        if self._work is not None:
            self._work.wait()
        summed: list[float] = self._vector.tolist()
        return summed


@dataclass(frozen=True)
class Peers:
    """The connected ranks. Every method is a collective: all ranks call it, in the same order."""

    world: World
    device: torch.device

    def sum(self, values: Sequence[float] | torch.Tensor, *more: float) -> list[float]:
        """`values`, then `more`, each summed over all ranks in fp64: the same bits on every rank."""
        vector = torch.as_tensor(values, dtype=torch.float64, device=self.device)
        if more:
            vector = torch.cat((vector, torch.tensor(more, dtype=torch.float64, device=self.device)))
        dist.all_reduce(vector)
        result: list[float] = vector.tolist()
        return result

    def start_sum(self, tensors: Sequence[torch.Tensor], numbers: Sequence[float]) -> PendingSum:
        """Begin to sum one-number `tensors`, then `numbers`, over all ranks in fp64."""
        parts = [torch.tensor(numbers, dtype=torch.float64).to(self.device, non_blocking=True)]
        if tensors:
            parts.insert(0, torch.stack(tuple(tensors)).double().flatten())
        vector = torch.cat(parts)
        return PendingSum(vector, dist.all_reduce(vector, async_op=True) if self.world.world_size > 1 else None)

    def sum_counts(self, counts: Sequence[int]) -> list[int]:
        """Each of `counts` summed over all ranks, exactly."""
        vector = torch.tensor(counts, dtype=torch.int64, device=self.device)
        dist.all_reduce(vector)
        return [int(count) for count in vector.tolist()]

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        """The `values` of every rank, as many of each, in the order of ranks; fp64, the same bits on every rank."""
        vector = torch.tensor(values, dtype=torch.float64, device=self.device)
        gathered = [torch.empty_like(vector) for _ in range(self.world.world_size)]
        dist.all_gather(gathered, vector)
        return [one.tolist() for one in gathered]

    def largest(self, number: int) -> int:
        """The largest `number` of any rank."""
        vector = torch.tensor([number], dtype=torch.int64, device=self.device)
        dist.all_reduce(vector, op=dist.ReduceOp.MAX)
        return int(vector.item())

    def from_first(self, number: int) -> int:
        """Rank 0's `number`."""
        vector = torch.tensor([number], dtype=torch.int64, device=self.device)
        dist.broadcast(vector, src=0)
        return int(vector.item())

    def distribute(self, model: torch.nn.Module) -> torch.nn.Module:
        """The model, its gradients averaged over all ranks; a rank alone needs nobody for that."""
        if self.world.world_size == 1:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)

    def wait(self) -> None:
        """Until every rank is here."""
        dist.barrier()
