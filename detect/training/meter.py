"""The losses of an epoch, gathered and written every few steps."""

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from detect.errors import DetectError
from detect.structures import Batch
from detect.training.checkpoints import save_checkpoint
from detect.training.journal import Journal
from detect.training.phases import GradientPhase
from detect.training.processes import Processes
from detect.training.progress import ProgressDisplay, describe_losses

# Steps in a row without a finite loss, after which leaving them out is no help.
HOPELESS = 100
# Batches with a loss that is not finite that are written to disk: enough to study.
NUM_STUDIED = 10


@dataclass(frozen=True)
class MeteredStep:
    """A step of the descent.

    Attributes:
        number: of the step in the run.
        terms: of its loss, `[]` each, on the device.
        is_bad: whether it was left out, `[]`, on the device.
        batch: that it learned from.
    """

    number: int
    terms: dict[str, Tensor]
    is_bad: Tensor
    batch: Batch


class Meter:
    """Gathers the losses of an epoch and writes them every few steps.

    Losses stay on the device until they are written, so that the loop does not wait for it.

    Args:
        phase: that the steps are of.
        journal: where they are written; None in processes that do not write.
        display: where they are shown.
        processes: over which the losses are averaged.
        on_nan: what a loss that is not finite does: `stop` or `skip`.
    """

    def __init__(
        self,
        phase: GradientPhase,
        journal: Journal,
        display: ProgressDisplay,
        processes: Processes,
        on_nan: str,
    ) -> None:
        self.phase = phase
        self.journal = journal
        self.display = display
        self.processes = processes
        self.on_nan = on_nan
        self._window: list[MeteredStep] = []
        self._sums: dict[str, float] = {}
        self._num_steps = self._num_images = self._window_images = 0
        self._waited = self._window_waited = 0.0
        self._num_bad = self._num_bad_in_a_row = 0
        self._learning_rate = 0.0
        self._epoch = 0
        self._begin = self._window_begin = time.perf_counter()

    @property
    def is_flushed(self) -> bool:
        """Whether all losses so far were looked at."""
        return not self._window

    def add(self, step: MeteredStep, epoch: int, waited: float, learning_rate: float) -> None:
        """Take up one step.

        Args:
            step: what it gave.
            epoch: of the phase, from 1.
            waited: seconds spent waiting for its batch.
            learning_rate: of the step.
        """
        self._epoch = epoch
        self._window.append(step)
        self._window_images += len(step.batch) * self.processes.count
        self._window_waited += waited
        self._learning_rate = learning_rate
        self.display.step()

    def flush(self) -> None:
        """Write the mean of the losses since the last writing.

        Raises:
            DetectError: a loss is not finite, and that is to stop the run.
        """
        if not self._window:
            return
        names = list(self._window[0].terms)
        rows = [torch.stack([*step.terms.values(), step.is_bad]) for step in self._window]
        # [steps, terms + 1]; the one place that waits for the device
        table = torch.stack([row.double() for row in rows]).cpu()
        self._look_at(names, table)
        table = self.processes.mean(table)
        is_finite = table.isfinite().all(dim=1) & (table[:, -1] == 0)
        means = dict.fromkeys(names, torch.nan)
        if is_finite.any():
            means = dict(zip(names, table[is_finite, :-1].mean(dim=0).tolist(), strict=True))
        now = time.perf_counter()
        elapsed = max(now - self._window_begin, 1e-9)
        speed, wait = self._window_images / elapsed, self._window_waited / elapsed
        last_step = self._window[-1].number
        if is_finite.any():
            self.journal.write(
                kind="train",
                phase=self.phase.name,
                epoch=self._epoch,
                step=last_step,
                loss=sum(means.values()),
                terms=means,
                learning_rate=self._learning_rate,
                images_per_second=round(speed, 2),
                data_wait=round(wait, 4),
            )
        num_good = int(is_finite.sum())
        for name, value in means.items():
            if num_good:
                self._sums[name] = self._sums.get(name, 0.0) + value * num_good
        self._num_steps += num_good
        self._num_images += self._window_images
        self._waited += self._window_waited
        self.display.show_losses(means, speed, wait)
        self._window, self._window_images, self._window_waited = [], 0, 0.0
        self._window_begin = now

    def summary(self) -> str:
        """Mean losses, speed and share of waiting over the epoch."""
        elapsed = max(self._window_begin - self._begin, 1e-9)
        means = {name: value / max(self._num_steps, 1) for name, value in self._sums.items()}
        left_out = f" | steps left out: {self._num_bad}" if self._num_bad else ""
        return (
            f"{describe_losses(means)} | {self._num_images / elapsed:.1f} images/s | "
            f"waiting for data {self._waited / elapsed:.0%}{left_out}"
        )

    def _look_at(self, names: list[str], table: Tensor) -> None:
        """Stop at a loss that is not finite, or say that its step was left out."""
        for step, row in zip(self._window, table, strict=True):
            if row.isfinite().all() and row[-1] == 0:
                self._num_bad_in_a_row = 0
                continue
            self._num_bad += 1
            self._num_bad_in_a_row += 1
            values = dict(zip(names, row[:-1].tolist(), strict=True))
            found = self._describe(step, values)
            kept = self._keep(step, values)
            if self.on_nan == "stop":
                raise DetectError(f"{found}. {kept}{_REMEDY}")
            if self._num_bad_in_a_row >= HOPELESS:
                raise DetectError(
                    f"{found}, as were those of {HOPELESS} steps in a row that were left out "
                    f"(engine.on_nan=skip). {_REMEDY}"
                )
            self.display.say(f"{found}: the step was left out. {kept}")

    def _describe(self, step: MeteredStep, values: dict[str, float]) -> str:
        terms = ", ".join(f"{name} {value:g}" for name, value in values.items())
        what = "gradient" if all(map(math.isfinite, values.values())) else "loss"
        images = ", ".join(_files(step.batch))
        return f"the {what} of step {step.number} is not finite ({terms}). Its images: {images}"

    def _keep(self, step: MeteredStep, values: dict[str, float]) -> str:
        """Write a batch to the disk for study; says where."""
        if self._num_bad > NUM_STUDIED:
            return ""
        rank = f"_process_{self.processes.rank}" if self.processes.count > 1 else ""
        path = self.journal.path.parent / "not_finite" / f"step_{step.number:08}{rank}.pt"
        batch = step.batch
        truths = [
            {"boxes": truth.boxes, "labels": truth.labels, "difficult": truth.difficult}
            for truth in batch.truths
        ]
        content = {
            "step": step.number,
            "terms": values,
            "files": _files(batch),
            "images": batch.images,
            "truths": truths,
            "proposals": None if batch.proposals is None else list(batch.proposals),
        }
        save_checkpoint(path, content)
        return f"The batch is in {path}. "


_REMEDY = (
    "Lower training.learning_rate, lengthen training.warmup_epochs, set training.gradient_clip, or "
    "leave such steps out with engine.on_nan=skip; checkpoints/last.pt is from before"
)


def _files(batch: Batch) -> list[str]:
    return [str(meta.path or meta.image_id) for meta in batch.metas]
