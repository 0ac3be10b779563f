"""Several processes that train one model: who they are, and what they tell each other.

`torchrun` starts the processes and says to each who it is, by environment variables.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from detect.errors import DetectError

Item = TypeVar("Item")

# The first process works alone at times, on proposals or SVMs, while the others wait. That one of
# them died is found by the connection that breaks, and by torchrun, not by this limit.
PATIENCE = timedelta(hours=48)


# What gloo and NCCL say of a process that is gone.
_BROKEN = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process")


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

    def gather_in_turn(self, items: Sequence[Item]) -> list[Item]:
        """The items of all processes, in the order that `share` took them from."""
        shares = self.gather(list(items))
        longest = max(len(share) for share in shares)
        return [share[n] for n in range(longest) for share in shares if n < len(share)]

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


def present_processes() -> Processes:
    """The processes that have met."""
    if dist.is_available() and dist.is_initialized():
        return Processes(dist.get_rank(), dist.get_world_size())
    return ALONE


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """Meet the other processes that torchrun started, if there are any, and part again.

    Raises:
        DetectError: a connection to another process broke.
    """
    if local_rank() is None or dist.is_initialized():  # by the caller, who parts as well
        yield present_processes()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield present_processes()
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _BROKEN):
            raise
        raise DetectError(
            f"process {dist.get_rank()}: another process of the run ended; its message says why. "
            "The run continues with --resume"
        ) from error
    finally:
        dist.destroy_process_group()
