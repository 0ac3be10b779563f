"""Counts over all processes of a training, for losses that are divided by a number of objects."""

import torch
import torch.distributed as dist
from torch import Tensor


def divisor_over_processes(count: Tensor | int) -> Tensor | int:
    """What a sum over `count` objects is divided by; at least 1 object is counted.

    Data-parallel processes average their gradients, so a sum divided by the mean count of all
    processes gives the mean over all objects, as in a single process. With each one's own count,
    an image with one object would weigh as much as one with ten. Every process must call this the
    same number of times. `count` is of this process, such as the positives of its part of a batch.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1)
    total = torch.as_tensor(count).detach().double()
    dist.all_reduce(total)
    return total.clamp(min=1) / dist.get_world_size()
