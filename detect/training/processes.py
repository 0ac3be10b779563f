"""Several processes that train one model: who they are, and what they tell each other.

`torchrun` starts the processes and says to each who it is, by environment variables.
"""

import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from detect.errors import DetectError

Item = TypeVar("Item")

# The first process works alone at times, on proposals or SVMs, while the others wait. That one of
# them died is found by the connection that breaks, and by torchrun, not by this limit.
PATIENCE = timedelta(hours=48)


# What gloo and NCCL say of a process that is gone.
_BROKEN = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process")


# Machines of a cluster may start minutes apart.
ARRIVAL = 1800.0  # seconds


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
    store, rank, count = next(rendezvous("env://"))
    store = PrefixStore(_agree_on_name(store, rank, count), store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PATIENCE)
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


def _agree_on_name(store: Any, rank: int, count: int) -> str:
    """A name that the processes of this start have in common, and those of an earlier one had not.

    After a restart, torchrun's store still has the addresses of the processes that died. Each
    process says a name that is new; the first one repeats what it reads until each of the others
    has found its own among these.

    Raises:
        DetectError: some of them did not come.
    """
    own = uuid.uuid4().hex
    store.set(f"detect/arrived/{rank}", own)
    end = time.monotonic() + ARRIVAL
    others = range(1, count)
    while time.monotonic() < end:
        if rank == 0:
            if all(store.check([f"detect/{own}/{other}"]) for other in others):
                return own
            keys = [f"detect/arrived/{other}" for other in others]
            arrived = [store.get(key).decode() for key in keys if store.check([key])]
            store.set("detect/room", " ".join([own, *arrived]))
        elif store.check(["detect/room"]):
            room: list[str] = store.get("detect/room").decode().split()
            if own in room:
                store.set(f"detect/{room[0]}/{rank}", "here")
                return room[0]
        time.sleep(0.02)
    raise DetectError(
        f"process {rank} of {count} waited {ARRIVAL / 60:.0f} minutes for the others; look whether "
        "torchrun runs on all machines with the same --rdzv-endpoint and --nnodes"
    )
