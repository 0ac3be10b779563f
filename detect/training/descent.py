"""The steps of a gradient descent: forward in parts, backward, clip, update."""

import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from detect.errors import DetectError
from detect.structures import Batch
from detect.training.averaging import AveragedWeights
from detect.training.optimizers import build_optimizer
from detect.training.phases import GradientPhase, Loss
from detect.training.processes import Processes
from detect.training.settings import EngineSettings


class Descent:
    """Takes the steps of one phase.

    A step whose loss or gradient is not finite does not change the weights. That is decided on the
    device, so that the loop does not wait for it.

    Args:
        phase: says what is trained, and how.
        model: that the phase belongs to; its weights are averaged where the phase asks for that.
        engine: how it is computed.
        device: of the model.
        processes: that train it together.
    """

    def __init__(
        self,
        phase: GradientPhase,
        model: nn.Module,
        engine: EngineSettings,
        device: torch.device,
        processes: Processes,
    ) -> None:
        self.phase = phase
        self.settings = phase.settings
        self.device = device
        self.processes = processes
        self.optimizer = build_optimizer(phase.module, phase.settings)
        self.precision = autocast_type(engine.precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision is torch.float16)
        decay = phase.settings.ema_decay
        self.averaged = None if decay is None else AveragedWeights(model, decay)
        self._parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self._running: list[Tensor] = []  # what a step that is left out must not change either
        if engine.on_nan == "skip":
            self._running = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        self._loss: Loss = phase.loss
        self._parallel: DistributedDataParallel | None = None
        if processes.count > 1:
            objective = _Objective(phase.module, phase.loss)
            # an image without objects leaves some layers without a gradient
            self._parallel = DistributedDataParallel(objective, find_unused_parameters=True)
            self._loss = self._parallel

    def step(self, batch: Batch, learning_rate: float) -> tuple[dict[str, Tensor], Tensor]:
        """Take one step; gives the terms of the loss, and whether the step was left out (`[]`).

        Raises:
            DetectError: the device has no memory for it.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        before = [buffer.clone() for buffer in self._running]
        try:
            terms = self._accumulate(batch)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise self._explain_memory(batch) from error
        except RuntimeError as error:
            if "allocate memory" in str(error) or "not enough memory" in str(error):
                raise self._explain_memory(batch) from error
            raise
        self.scaler.unscale_(self.optimizer)
        is_bad = self._is_bad(terms)
        self._update(is_bad)
        for buffer, old in zip(self._running, before, strict=True):
            torch.where(is_bad, old, buffer, out=buffer)
        if self.averaged is not None:
            self.averaged.update()
        return terms, is_bad

    def state_dict(self) -> dict[str, Any]:
        """Plain data: all that the next step depends on, apart from the model."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.averaged is not None and state["averaged"] is not None:
            self.averaged.load_state_dict(state["averaged"])

    def with_averaged_weights(self) -> AbstractContextManager[None]:
        """Within it, the model has its averaged weights, if there are any."""
        return nullcontext() if self.averaged is None else self.averaged.applied()

    def _accumulate(self, batch: Batch) -> dict[str, Tensor]:
        # forward and backward, part by part
        parts = batch.parts(self.settings.accumulate)
        sums: dict[str, Tensor] = {}
        for number, part in enumerate(parts, start=1):
            share = len(part) / len(batch)
            with self._without_exchange(number < len(parts)):
                with torch.autocast(
                    self.device.type, self.precision, enabled=self.precision is not None
                ):
                    terms = self._loss(part.to(self.device))
                loss = torch.stack(list(terms.values())).sum()
                self.scaler.scale(loss if len(parts) == 1 else loss * share).backward()
            for name, term in terms.items():
                term = term.detach() * share if len(parts) > 1 else term.detach()
                sums[name] = sums[name] + term if name in sums else term
        return sums

    def _without_exchange(self, is_off: bool) -> AbstractContextManager[None]:
        # gradients are exchanged once a step, with the last part
        if self._parallel is None or not is_off:
            return nullcontext()
        return self._parallel.no_sync()

    def _is_bad(self, terms: dict[str, Tensor]) -> Tensor:
        """Whether the loss or the gradient is not finite, after clipping; `[]` bool."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if self.settings.gradient_clip is not None:
            nn.utils.clip_grads_with_norm_(self._parameters, self.settings.gradient_clip, norm)
        loss = torch.stack([term.double() for term in terms.values()]).sum()
        is_bad = ~loss.isfinite()
        if not self.scaler.is_enabled():  # else a gradient beyond float16 is the scaler's to handle
            is_bad = is_bad | ~norm.isfinite()
        if self.processes.count > 1:
            is_bad = self.processes.mean(is_bad.double()) > 0
        return is_bad

    def _update(self, is_bad: Tensor) -> None:
        if self.scaler.is_enabled():
            # the scaler leaves a step out, and lowers its scale, where a gradient is not finite
            for parameter in self._parameters:
                if parameter.grad is not None:
                    parameter.grad.masked_fill_(is_bad, torch.nan)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            return
        # what the scaler tells a fused optimizer, which then leaves its state as it is
        optimizer: Any = self.optimizer
        optimizer.grad_scale, optimizer.found_inf = None, is_bad.float()
        optimizer.step()
        del optimizer.grad_scale, optimizer.found_inf

    def _explain_memory(self, batch: Batch) -> DetectError:
        count, _, height, width = batch.images.shape
        where = str(self.device)
        if self.device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self.device)
            where += f" has {total / 2**30:.1f} GiB, {free / 2**30:.1f} GiB of them free"
        return DetectError(
            f"out of memory: a step of {count} images of {height}×{width} pixels, in "
            f"{len(batch.parts(self.settings.accumulate))} parts, in phase {self.phase.name}; "
            f"{where}. What takes less: training.accumulate={2 * self.settings.accumulate} (the "
            "same step in smaller parts), engine.precision=mixed, "
            "engine.gradient_checkpointing=true, a smaller training.batch_size or "
            "detector.input_size. The run continues with --resume"
        )


class _Objective(nn.Module):
    """A loss as the forward pass of a module, which is what is made parallel."""

    def __init__(self, module: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.module = module
        self._loss = loss

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self._loss(batch)


def autocast_type(precision: str, device: torch.device) -> torch.dtype | None:
    """The type that `engine.precision` means on a device; None for float32 throughout.

    A CPU without instructions for bfloat16 imitates it, at a tenth of the speed of float32
    (measured): there, `mixed` is float32.
    """
    if precision == "mixed":
        if device.type == "cuda":
            has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
            return torch.bfloat16 if has_bfloat16 else torch.float16
        return torch.bfloat16 if cpu_has_bfloat16() else None
    return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def cpu_has_bfloat16() -> bool:
    """Whether this machine's CPU computes in bfloat16."""
    names = ("avx512_bf16", "amx_bf16", "bf16")  # the last one is ARM's
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # macOS; its processors have it from the M2 on, and there is no telling
        return False
    return any(re.search(rf"\b{name}\b", text) for name in names)
