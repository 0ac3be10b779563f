"""Maps that are dropped and recomputed for the gradient: less memory for more time.

Chen et al. 2016, "Training deep nets with sublinear memory cost".
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recomputed(run: Callable[..., Any], layers: nn.Module, features: Tensor) -> Tensor:
    """The output of `run`, which runs `layers`, with their maps recomputed for the gradient.

    The second pass does not update BatchNorm's running statistics, and dropout draws the same
    numbers again.
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _held_statistics(layers)

    outputs: Tensor = checkpoint(run, features, use_reentrant=False, context_fn=contexts)
    return outputs


@contextmanager
def _held_statistics(layers: nn.Module) -> Iterator[None]:
    norms = [layer for layer in layers.modules() if isinstance(layer, _BatchNorm)]
    held = [
        (norm, norm.momentum, norm.num_batches_tracked)
        for norm in norms
        if norm.training and norm.track_running_stats
    ]
    with torch.no_grad():
        for norm, _, count in held:
            norm.momentum = 0.0
            norm.num_batches_tracked = None if count is None else count.clone()
    try:
        yield
    finally:
        for norm, momentum, count in held:
            norm.momentum, norm.num_batches_tracked = momentum, count
