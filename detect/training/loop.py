"""The one gradient loop, and the run of phases around it."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detect.errors import DetectError
from detect.structures import Batch
from detect.training.checkpoints import load_checkpoint, save_checkpoint
from detect.training.interruption import Interruption
from detect.training.journal import Journal
from detect.training.optimizers import build_optimizer
from detect.training.phases import FitPhase, GradientPhase, Phase
from detect.training.progress import ProgressDisplay, describe_losses
from detect.training.schedules import learning_rate_factor

# Seconds between writings of last.pt when evaluations are rarer.
CHECKPOINT_INTERVAL = 300.0


@dataclass(frozen=True)
class Score:
    """The number by which the best state of a model is chosen; higher is better.

    Attributes:
        name: among what the evaluation gives.
        label: for people.
    """

    name: str
    label: str


MEAN_AVERAGE_PRECISION = Score("map_area", "mAP")


@dataclass
class Position:
    """How far a run has come.

    Attributes:
        finished_phases: names of the phases that are done.
        epoch: complete epochs of the current phase.
        batch: batches of the epoch after them.
        step: optimizer steps over all phases.
        best_score: highest evaluation score of the current phase so far, or None.
    """

    finished_phases: list[str] = field(default_factory=list)
    epoch: int = 0
    batch: int = 0
    step: int = 0
    best_score: float | None = None


class TrainingRun:
    """Takes a model through its phases and leaves a folder that can be continued.

    The folder holds `metrics.jsonl`, `checkpoints/last.pt` (everything that is needed to go on) and
    `checkpoints/best.pt` (the model at the best evaluation of its last phase, without the
    optimizer).

    Args:
        model: trained in place, on `device`.
        folder: of the run.
        device: that the batches are moved to.
        identity: plain data stored in every checkpoint (config, class names).
        evaluate: gives at least the score of the model as it is; None trains without.
        display: shows the progress.
        kind: of the model: the key under which a checkpoint has its state dict.
        score: chooses the best state.
    """

    def __init__(
        self,
        model: nn.Module,
        folder: Path,
        device: torch.device,
        identity: Mapping[str, Any],
        evaluate: Callable[[], Mapping[str, float]] | None,
        display: ProgressDisplay,
        *,
        kind: str = "detector",
        score: Score = MEAN_AVERAGE_PRECISION,
    ) -> None:
        self.model = model
        self.kind = kind
        self.score = score
        self.device = device
        self.identity = dict(identity)
        self.evaluate = evaluate
        self.display = display
        self.folder = folder
        self.last = folder / "checkpoints" / "last.pt"
        self.best = folder / "checkpoints" / "best.pt"
        self.journal = Journal(folder / "metrics.jsonl")
        self.position = Position()
        self._optimizer_state: dict[str, Any] | None = None
        self._last_saved = time.monotonic()

    def resume(self) -> None:
        """Take up the state of `last.pt`; without that file the run begins at the beginning."""
        if not self.last.exists():
            return
        content = load_checkpoint(self.last)
        if "training" not in content or self.kind not in content:
            raise DetectError(
                f"{self.last}: expected the state of a training of a {self.kind}, found "
                "another file, such as best.pt; give its path as backbone.weights, or begin anew "
                "in another folder"
            )
        self.model.load_state_dict(content[self.kind])
        state = content["training"]
        self.position = Position(**state["position"])
        self._optimizer_state = state["optimizer"]
        torch.set_rng_state(state["torch_generator"])
        if state["cuda_generator"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_generator"], self.device)

    def run(self, phases: Sequence[Phase]) -> None:
        """Run the phases that are not finished, in order.

        Raises:
            Interrupted: by Ctrl-C or a termination signal, after the step was finished and
                `last.pt` was written.
            DetectError: the loss is not finite.
        """
        # of an attempt that went further than its last checkpoint, or never reached one
        self.journal.forget_after(self.position.step)
        with self.display, Interruption() as interruption:
            for phase in phases:
                if phase.name in self.position.finished_phases:
                    continue
                begin = time.perf_counter()
                told: Mapping[str, Any] = {}
                if isinstance(phase, GradientPhase):
                    self._descend(phase, interruption)
                elif isinstance(phase, FitPhase):
                    told = self._fit(phase, interruption)
                    if phase is phases[-1] and self.evaluate is not None:
                        self._judge(phase.name)
                else:
                    raise TypeError(f"no way to run a {type(phase).__name__}")
                self.position.finished_phases.append(phase.name)
                self.position.epoch = 0
                self.position.best_score = None
                self._save(None)
                seconds = time.perf_counter() - begin
                self.journal.write(
                    kind="phase",
                    phase=phase.name,
                    step=self.position.step,
                    seconds=seconds,
                    **told,
                )
                if interruption.requested:
                    raise interruption.error(self.last)

    def _fit(self, phase: FitPhase, interruption: Interruption) -> Mapping[str, Any]:
        begin = time.perf_counter()
        told = phase.fit(_Watch(self, phase.name, interruption))
        self.display.say(f"{phase.name}: done in {time.perf_counter() - begin:.1f} s")
        return told or {}

    def _descend(self, phase: GradientPhase, interruption: Interruption) -> None:
        settings, position = phase.settings, self.position
        optimizer = build_optimizer(phase.module, settings)
        if self._optimizer_state is not None:
            optimizer.load_state_dict(self._optimizer_state)
            self._optimizer_state = None
        steps_per_epoch = len(phase.batches)
        done = position.epoch * steps_per_epoch + position.batch
        self.display.start_phase(phase.name, settings.epochs * steps_per_epoch, done)
        while position.epoch < settings.epochs:
            phase.module.train()
            meter = Meter(phase, self.journal, self.display, self.position)
            batches = phase.batches.epoch(position.epoch, position.batch)
            for batch, waited in _timed(batches):
                step_of_phase = position.epoch * steps_per_epoch + position.batch
                factor = learning_rate_factor(step_of_phase, steps_per_epoch, settings)
                for group in optimizer.param_groups:
                    group["lr"] = factor * settings.learning_rate
                terms = self._step(phase, optimizer, batch)
                position.batch += 1
                position.step += 1
                meter.add(terms, batch, waited, factor * settings.learning_rate)
                if position.batch == steps_per_epoch:
                    continue  # the end of the epoch saves
                if interruption.requested:
                    meter.flush()
                    self._save(optimizer)
                    raise interruption.error(self.last)
                is_old = time.monotonic() - self._last_saved > CHECKPOINT_INTERVAL
                # losses that were not looked at may not be finite: no checkpoint after those
                if is_old and meter.is_flushed:
                    self._save(optimizer)
            meter.flush()
            position.epoch += 1
            position.batch = 0
            self._end_epoch(phase, optimizer, meter)
            if interruption.requested:
                raise interruption.error(self.last)

    def _step(
        self, phase: GradientPhase, optimizer: torch.optim.Optimizer, batch: Batch
    ) -> dict[str, Tensor]:
        terms = phase.loss(batch.to(self.device))
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        if phase.settings.gradient_clip is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, phase.settings.gradient_clip)
        optimizer.step()
        return {name: term.detach() for name, term in terms.items()}

    def _end_epoch(
        self, phase: GradientPhase, optimizer: torch.optim.Optimizer, meter: "Meter"
    ) -> None:
        settings, position = phase.settings, self.position
        summary = f"{phase.name} epoch {position.epoch}/{settings.epochs}: {meter.summary()}"
        is_due = position.epoch % settings.evaluate_every == 0 or position.epoch == settings.epochs
        if self.evaluate is not None and is_due:
            summary += f" | {self._judge(phase.name)}"
        self._save(optimizer)
        self.display.say(summary)

    def _judge(self, phase: str) -> str:
        """Evaluate the model as it is; keep it if it is the best of its phase."""
        assert self.evaluate is not None
        position = self.position
        scores = dict(self.evaluate())
        self.journal.write(
            kind="evaluation",
            phase=phase,
            epoch=position.epoch,
            step=position.step,
            **{name: None if math.isnan(score) else score for name, score in scores.items()},
        )
        score = scores[self.score.name]
        is_best = position.best_score is None or score > position.best_score
        if is_best:
            position.best_score = None if math.isnan(score) else score
            self._save_best(scores)
        return f"{self.score.label} {score:.4f}{' (best)' if is_best else ''}"

    def save(self) -> None:
        """Write `last.pt` between two phases."""
        self._save(None)

    def _save(self, optimizer: torch.optim.Optimizer | None) -> None:
        on_cuda = self.device.type == "cuda"
        training = {
            "position": dict(vars(self.position)),
            "optimizer": None if optimizer is None else optimizer.state_dict(),
            "torch_generator": torch.get_rng_state(),
            "cuda_generator": torch.cuda.get_rng_state(self.device) if on_cuda else None,
        }
        content = {**self.identity, self.kind: self.model.state_dict(), "training": training}
        save_checkpoint(self.last, content)
        self._last_saved = time.monotonic()

    def _save_best(self, scores: Mapping[str, float]) -> None:
        content = {**self.identity, self.kind: self.model.state_dict()}
        save_checkpoint(
            self.best, {**content, "scores": dict(scores), "position": dict(vars(self.position))}
        )


class _Watch:
    """Shows how far a `FitPhase` is, and ends it when the user asks for that."""

    def __init__(self, run: TrainingRun, name: str, interruption: Interruption) -> None:
        self.run, self.name, self.interruption = run, name, interruption
        self._shown: tuple[int, int] | None = None  # units done, of how many

    def __call__(self, done: int, total: int) -> None:
        if self._shown is None or self._shown[1] != total or done < self._shown[0]:
            self.run.display.start_phase(self.name, total, done)
        else:
            self.run.display.step("", done - self._shown[0])
        self._shown = (done, total)
        if self.interruption.requested:
            self.run.save()
            raise self.interruption.error(self.run.last)

    def say(self, message: str) -> None:
        self.run.display.say(f"{self.name}: {message}")


class Meter:
    """Gathers the losses of an epoch and writes them every few steps.

    Losses stay on the device until they are written, so that the loop does not wait for it.
    """

    def __init__(
        self,
        phase: GradientPhase,
        journal: Journal,
        display: ProgressDisplay,
        position: Position,
    ) -> None:
        self.phase = phase
        self.journal = journal
        self.display = display
        self.position = position
        self._window: list[tuple[int, dict[str, Tensor], Batch]] = []
        self._sums: dict[str, float] = {}
        self._num_steps = self._num_images = self._window_images = 0
        self._waited = self._window_waited = 0.0
        self._status = ""
        self._learning_rate = 0.0
        self._begin = self._window_begin = time.perf_counter()

    def add(
        self, terms: dict[str, Tensor], batch: Batch, waited: float, learning_rate: float
    ) -> None:
        """Take up one step; `waited` are the seconds spent waiting for its batch."""
        self._window.append((self.position.step, terms, batch))
        self._window_images += len(batch)
        self._window_waited += waited
        self._learning_rate = learning_rate
        # counted over the epoch, so that a resumed one writes at the same steps
        if self.position.batch % self.phase.settings.log_interval == 0:
            self.flush()
        self.display.step(self._status)

    @property
    def is_flushed(self) -> bool:
        """Whether all steps are written."""
        return not self._window

    def flush(self) -> None:
        """Write the steps since the last line, if any.

        Raises:
            DetectError: one of their losses is not finite.
        """
        if not self._window:
            return
        names = list(self._window[0][1])
        table = torch.stack([torch.stack(list(terms.values())) for _, terms, _ in self._window])
        values = table.double().cpu()  # [steps, terms]; the one place that waits for the device
        self._check_finite(names, values)
        means = dict(zip(names, values.mean(dim=0).tolist(), strict=True))
        now = time.perf_counter()
        elapsed = max(now - self._window_begin, 1e-9)
        speed, wait = self._window_images / elapsed, self._window_waited / elapsed
        self.journal.write(
            kind="train",
            phase=self.phase.name,
            epoch=self.position.epoch + 1,
            step=self.position.step,
            loss=sum(means.values()),
            terms=means,
            learning_rate=self._learning_rate,
            images_per_second=round(speed, 2),
            data_wait=round(wait, 4),
        )
        for name, value in means.items():
            self._sums[name] = self._sums.get(name, 0.0) + value * len(self._window)
        self._num_steps += len(self._window)
        self._num_images += self._window_images
        self._waited += self._window_waited
        self._status = (
            f"{describe_losses(means)} | {speed:.0f} images/s | waiting for data {wait:.0%}"
        )
        self._window, self._window_images, self._window_waited = [], 0, 0.0
        self._window_begin = now

    def summary(self) -> str:
        """Mean losses, speed and share of waiting over the epoch."""
        elapsed = max(self._window_begin - self._begin, 1e-9)
        means = {name: value / max(self._num_steps, 1) for name, value in self._sums.items()}
        return (
            f"{describe_losses(means)} | {self._num_images / elapsed:.1f} images/s | "
            f"waiting for data {self._waited / elapsed:.0%}"
        )

    def _check_finite(self, names: list[str], values: Tensor) -> None:
        rows = (~values.isfinite()).any(dim=1).nonzero()
        if len(rows) == 0:
            return
        row = int(rows[0])
        step, _, batch = self._window[row]
        terms = ", ".join(f"{n} {v:g}" for n, v in zip(names, values[row].tolist(), strict=True))
        files = ", ".join(str(meta.path or meta.image_id) for meta in batch.metas)
        raise DetectError(
            f"the loss of step {step} is not finite ({terms}). Its pictures: {files}. "
            "Lower training.learning_rate, lengthen training.warmup_epochs or set "
            "training.gradient_clip; checkpoints/last.pt is from before"
        )


def _timed(batches: Any) -> Iterator[tuple[Batch, float]]:
    # each batch with the seconds spent waiting for it
    iterator = iter(batches)
    while True:
        begin = time.perf_counter()
        try:
            batch = next(iterator)
        except StopIteration:
            return
        yield batch, time.perf_counter() - begin
