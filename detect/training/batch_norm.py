"""BatchNorm over the images of all processes."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; the gradient is summed as well."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:  # noqa: ARG004
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _sum_over_processes(values: Tensor) -> Tensor:
    total: Tensor = _SumOverProcesses.apply(values)
    return total


class SynchronizedBatchNorm(_BatchNorm):
    """`nn.SyncBatchNorm` for devices that it has no kernel for, CPUs among them."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 dimensions, found {input.dim()}")

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalize by the mean and the variance over all processes; in training mode only."""
        if not self.training or not dist.is_initialized() or self.momentum is None:
            return super().forward(inputs)
        channels = inputs.shape[1]
        table = inputs.transpose(0, 1).reshape(channels, -1)  # [C, B · positions]
        count = _sum_over_processes(table.new_tensor(float(table.shape[1])))
        mean = _sum_over_processes(table.sum(dim=1)) / count
        variance = _sum_over_processes((table - mean[:, None]).square().sum(dim=1)) / count
        if self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                unbiased = variance * count / (count - 1).clamp(min=1)
                self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
                self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        shape = (1, channels, *(1,) * (inputs.dim() - 2))
        outputs: Tensor = (inputs - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            outputs = outputs * self.weight.view(shape) + self.bias.view(shape)
        return outputs


def synchronize_batch_norm(module: nn.Module) -> None:
    """Let every BatchNorm of a module take the statistics of all processes, in place.

    The layers stay the same objects, since a backbone remembers which of its layers are frozen.
    """
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            is_on_gpu = layer.running_mean is not None and layer.running_mean.is_cuda
            if is_on_gpu:
                layer.__class__ = nn.SyncBatchNorm  # type: ignore[assignment]
                layer.process_group = None  # type: ignore[assignment]
            else:
                layer.__class__ = SynchronizedBatchNorm  # type: ignore[assignment]
