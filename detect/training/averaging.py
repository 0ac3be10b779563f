"""Averaged weights: what stochastic descent circles around."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# The average of the first steps follows the weights closely: decay (1 + n) / (10 + n) after n
# updates, until that is above the decay asked for (as in TensorFlow's ExponentialMovingAverage).
WARMUP = 10


class AveragedWeights:
    """The exponential moving average of a module's weights and running statistics.

    After step n, `average ← d · average + (1 − d) · weights` with `d = min(decay, (1 + n) /
    (10 + n))` (Polyak & Juditsky 1992, in the exponential form). Whole numbers, such as
    BatchNorm's count of batches, are taken as they are.

    Args:
        module: whose weights are followed.
        decay: in 0…1.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = module
        self.decay = decay
        self.num_updates = 0
        self.average = {name: value.detach().clone() for name, value in _weights_of(module).items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take up the weights as they are now."""
        decay = min(self.decay, (1 + self.num_updates) / (WARMUP + self.num_updates))
        self.num_updates += 1
        now = _weights_of(self.module)
        real = [name for name, value in now.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [self.average[name] for name in real], [now[name] for name in real], 1 - decay
        )
        for name, value in now.items():
            if not value.is_floating_point():
                self.average[name].copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average into the module, and take it out again."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def keep(self) -> None:
        """Make the average the weights of the module for good."""
        self._exchange()

    def state_dict(self) -> dict[str, object]:
        """Plain data."""
        return {"num_updates": self.num_updates, "average": dict(self.average)}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Take up what `state_dict` gave."""
        num_updates, average = state["num_updates"], state["average"]
        assert isinstance(num_updates, int)
        assert isinstance(average, dict)
        self.num_updates = num_updates
        for name, value in average.items():
            self.average[name].copy_(value)

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, value in _weights_of(self.module).items():
            before = value.clone()
            value.copy_(self.average[name])
            self.average[name].copy_(before)


def _weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Weights and running statistics by name; what two parts share comes once."""
    seen: set[int] = set()
    weights = {}
    for name, value in module.state_dict().items():
        if value.numel() and value.data_ptr() in seen:
            continue
        seen.add(value.data_ptr())
        weights[name] = value
    return weights
