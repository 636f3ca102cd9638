"""One training spread over several processes, each with a share of every batch.

    torchrun --nproc-per-node 2 -m addgpt train --task add --digits 3

Every worker draws the same batch from (seed, step) and takes its own rows of it, so that training
sees the same problems whatever the number of workers, no two workers have a row in common, and a
run may be resumed with another number. Gradients are added up over the workers before each step
(data parallelism, as in Li et al. 2020, arXiv:2006.15704, without buckets: these models are small).
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from addgpt.runs.files import RunError
from addgpt.task import Batch

TIMEOUT = datetime.timedelta(minutes=10)  # a worker silent for longer is lost
FROM_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class WorkerLost(RunError):
    """Another worker stopped responding."""


@dataclass(frozen=True)
class World:
    """The workers of a training: how many there are, and which of them this process is."""

    rank: int = 0
    size: int = 1
    local: int = 0  # rank among the workers of this machine, hence the number of its GPU

    @property
    def main(self) -> bool:
        """Whether this is the one worker that writes and talks."""
        return self.rank == 0

    def shard(self, batch: Batch) -> Batch:
        """This worker's rows of a batch: every `size`-th in order of length, for equal work."""
        if self.size == 1:
            return batch
        return batch.rows(np.argsort(batch.lengths, kind="stable")[self.rank :: self.size])

    def sum(self, values: Sequence[float]) -> list[float]:
        """The values, each added up over all workers."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        with _answered():
            dist.all_reduce(total)
        return total.tolist()

    def any(self, flag: bool) -> bool:
        """Whether the flag is up on any worker; the same answer on all of them."""
        return self.sum([float(flag)])[0] > 0

    def all_reduce_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace the gradients by their sums over all workers, in one exchange."""
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.size == 1 or not grads:
            return
        flat = torch.cat([grad.flatten() for grad in grads])
        with _answered():
            dist.all_reduce(flat)
        for grad, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def broadcast(self, text: str = "") -> str:
        """The text that the main worker has; the others wait for it."""
        if self.size == 1:
            return text
        data = list(text.encode()) if self.main else []
        with _answered():
            length = torch.tensor([len(data)])
            dist.broadcast(length, 0)
            content = torch.tensor(data if self.main else [0] * int(length), dtype=torch.uint8)
            dist.broadcast(content, 0)
        return bytes(content.tolist()).decode()


ALONE = World()


@contextlib.contextmanager
def joined() -> Iterator[World]:
    """The world that torchrun made, or a world of one. Raises WorkerLost if one does not appear."""
    if not all(os.environ.get(name) for name in FROM_TORCHRUN):
        yield World()
        return
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    kinds = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    # This module, which optimizers load, keeps the group there is then as a default argument for
    # good. So it is loaded before there is one, or the group would outlive its destruction.
    from torch.distributed.nn import functional  # noqa: F401

    with _answered():
        dist.init_process_group(kinds, timeout=TIMEOUT)
    world, ended = World(rank, size, int(os.environ.get("LOCAL_RANK", rank))), False
    try:
        yield world
        with contextlib.suppress(
            WorkerLost
        ):  # all work is done: a worker that stopped by now does not matter
            world.sum([0.0])  # no one closes the connection while a worker is still in an exchange
            ended = True
    finally:
        # Threads of gloo that outlive the interpreter abort the process when they want its lock.
        # After an error NCCL would wait for the others.
        if ended or not torch.cuda.is_available():
            dist.destroy_process_group()


@contextlib.contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:  # torch.distributed raises either
        reason = str(error).partition("\n")[0][:200]
        raise WorkerLost(f"a worker was lost ({reason})") from None
