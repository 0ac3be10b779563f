"""Several processes that train one model: who they are, and what they tell each other.

`torchrun` starts the processes and says to each who it is, by environment variables.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

# The first process works alone at times, on proposals or SVMs, while the others wait. That one of
# them died is found by the connection that breaks, and by torchrun, not by this limit.
PATIENCE = timedelta(hours=48)


@dataclass(frozen=True)
class Processes:
    """This process among those of a run.

    Attributes:
        rank: number of this process, from 0.
        count: of all processes, on all machines.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self.rank == 0

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Run the block in the first process, then in the others, which find its files."""
        if not self.is_first:
            dist.barrier()
        yield
        if self.is_first and self.count > 1:
            dist.barrier()

    def share(self, items: Sequence[Any]) -> list[Any]:
        """Every `count`-th of the items, from that of this process on."""
        return list(items[self.rank :: self.count])

    def gather(self, item: Any) -> list[Any]:
        """What each process has, by rank, in all of them."""
        if self.count == 1:
            return [item]
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, item)
        return found

    def greatest(self, numbers: Sequence[int]) -> list[int]:
        """The greatest of each number over the processes."""
        if self.count == 1:
            return list(numbers)
        table = torch.tensor(numbers, dtype=torch.int64)
        dist.all_reduce(table, dist.ReduceOp.MAX)
        return [int(number) for number in table]

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor over the processes."""
        if self.count == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values / self.count

    def copy_from_first(self, module: nn.Module) -> None:
        """Give the weights of the first process to all."""
        if self.count == 1:
            return
        for value in module.state_dict().values():
            dist.broadcast(value, 0)


ALONE = Processes()


def local_rank() -> int | None:
    """The number of this process on its machine; None when there is no other."""
    return int(os.environ["LOCAL_RANK"]) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """Meet the other processes that torchrun started, if there are any, and part again."""
    if dist.is_initialized():  # by the caller, who parts as well
        yield Processes(dist.get_rank(), dist.get_world_size())
        return
    if local_rank() is None:
        yield ALONE
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
