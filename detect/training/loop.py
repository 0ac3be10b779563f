"""The one gradient loop, and the run of phases around it."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detect.errors import DetectError
from detect.forecast import Forecast, numbered
from detect.structures import Batch
from detect.training.checkpoints import CheckpointFolder, save_checkpoint
from detect.training.descent import Descent
from detect.training.generators import generators_state, restore_generators
from detect.training.interruption import Interruption
from detect.training.journal import Journal
from detect.training.meter import Meter, MeteredStep
from detect.training.phases import FitPhase, GradientPhase, Phase
from detect.training.processes import ALONE, Processes
from detect.training.progress import ProgressDisplay
from detect.training.schedules import learning_rate_factor
from detect.training.settings import EngineSettings
from detect.wording import counted, duration

DEFAULT_ENGINE = EngineSettings()


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

    The folder holds `metrics.jsonl` and `metrics.csv`, `checkpoints/last.pt` (everything that is
    needed to go on; `step_<step>.pt` are the states before it) and `checkpoints/best.pt` (the model
    at the best evaluation of its last phase, without the optimizer).

    Args:
        model: trained in place, on `device`.
        folder: of the run.
        device: that the batches are moved to.
        identity: plain data stored in every checkpoint (config, class names).
        evaluate: gives at least the score of the model as it is; None trains without.
        display: shows the progress.
        kind: of the model: the key under which a checkpoint has its state dict.
        score: chooses the best state.
        engine: how the run computes and what it writes.
        processes: that take the run together, each on its part of every batch.
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
        engine: EngineSettings = DEFAULT_ENGINE,
        processes: Processes = ALONE,
    ) -> None:
        self.model = model
        self.kind = kind
        self.score = score
        self.device = device
        self.identity = dict(identity)
        self.evaluate = evaluate
        self.display = display
        self.engine = engine
        self.processes = processes
        self.folder = folder
        self.checkpoints = CheckpointFolder(folder / "checkpoints", engine.keep)
        self.journal = Journal(folder / "metrics.jsonl", is_writing=processes.is_first)
        self.position = Position()
        self._descent_state: dict[str, Any] | None = None
        self._last_saved = time.monotonic()

    @property
    def last(self) -> Path:
        """The file of the newest state."""
        return self.checkpoints.last

    @property
    def best(self) -> Path:
        """The file of the model at its best evaluation."""
        return self.checkpoints.best

    def resume(self) -> None:
        """Take up the newest state that is sound; where there is none, begin at the beginning.

        Raises:
            DetectError: all states are damaged, or `last.pt` is none of a training.
        """
        with self.processes.first_alone():
            found = self.checkpoints.load_newest(self.display.say)
        if found is None:
            return
        path, content = found
        if "training" not in content or self.kind not in content:
            raise DetectError(
                f"{path}: expected the state of a training of a {self.kind}, found "
                "another file, such as best.pt; give its path as backbone.weights, or start again "
                "in another folder"
            )
        self.model.load_state_dict(content[self.kind])
        state = content["training"]
        self.position = Position(**state["position"])
        self._descent_state = state["descent"]
        generators = state["generators"]
        if len(generators) == self.processes.count:
            restore_generators(generators[self.processes.rank])
            return
        # nobody has gone on from here with so many: each draws numbers of its own
        torch.manual_seed(self.processes.rank + 1000 * self.position.step)
        self.display.say(
            f"The run was begun by {counted(len(generators), 'process')} and goes on with "
            f"{self.processes.count}: it will not end in the same bits"
        )

    def run(self, phases: Sequence[Phase]) -> None:
        """Run the phases that are not finished, in order.

        Raises:
            Interrupted: by Ctrl-C or a termination signal, after the step was finished and
                `last.pt` was written.
            DetectError: the loss is not finite.
        """
        # of an attempt that went further than its last checkpoint, or never reached one
        self.journal.forget(self._is_undone)
        self._announce(phases)
        with self.display, closing(self.journal), Interruption() as interruption:
            for row, phase in enumerate(phases):
                if phase.name in self.position.finished_phases:
                    continue
                begin = time.perf_counter()
                told: Mapping[str, Any] = {}
                if isinstance(phase, GradientPhase):
                    try:
                        self._descend(phase, phases[row + 1 :], interruption)
                    except (RuntimeError, ConnectionError, EOFError) as error:
                        raise phase.batches.explain(error) from error
                elif isinstance(phase, FitPhase):
                    told = self._fit(phase, interruption)
                    if phase is phases[-1] and self.evaluate is not None:
                        self._judge(phase.name)
                else:
                    raise TypeError(f"no way to run a {type(phase).__name__}")
                # before the state that has the phase behind it: a kill between them loses nothing
                self.journal.write(
                    kind="phase",
                    phase=phase.name,
                    step=self.position.step,
                    seconds=time.perf_counter() - begin,
                    peak_memory_mib=peak_memory(self.device),
                    **told,
                )
                self.position.finished_phases.append(phase.name)
                self.position.epoch = 0
                self.position.best_score = None
                self._save(None)
                self.journal.write_table()
                self._leave_if_asked(interruption)

    def _is_undone(self, line: Mapping[str, Any]) -> bool:
        """Whether a line of the journal tells of what the present state does not have."""
        position = self.position
        if line["step"] > position.step:
            return True
        if "phase" not in line or line["phase"] in position.finished_phases:
            return False
        # of a phase that is not finished, the state has the epochs and steps of a descent
        has_begun = position.epoch > 0 or position.batch > 0
        return not has_begun or line["kind"] == "phase"

    def _fit(self, phase: FitPhase, interruption: Interruption) -> Mapping[str, Any]:
        begin = time.perf_counter()
        told: Mapping[str, Any] | None = None
        if self.processes.is_first:  # it solves one problem: the others wait for what it leaves
            told = phase.fit(_Watch(self, phase.name, interruption))
        self.processes.copy_from_first(self.model)
        self.display.say(f"{phase.name}: done in {duration(time.perf_counter() - begin)}")
        return told or {}

    def _announce(self, phases: Sequence[Phase]) -> None:
        """Say what will run."""
        lines = [_described(phase) for phase in phases]
        position = self.position
        for row, phase in enumerate(phases):
            if phase.name in position.finished_phases:
                lines[row] += " (done before)"
            elif position.epoch and row == len(position.finished_phases):
                lines[row] += f" ({position.epoch} done before)"
        if len(lines) == 1:
            self.display.say(f"Training: {lines[0]}")
            return
        for line in [f"Training, {len(lines)} phases:", *numbered(lines)]:
            self.display.say(line)

    def _descend(
        self, phase: GradientPhase, later: Sequence[Phase], interruption: Interruption
    ) -> None:
        settings, position = phase.settings, self.position
        descent = Descent(phase, self.model, self.engine, self.device, self.processes)
        if self._descent_state is not None:
            descent.load_state_dict(self._descent_state)
            self._descent_state = None
        steps_per_epoch = len(phase.batches)
        done = position.epoch * steps_per_epoch + position.batch
        total = settings.epochs * steps_per_epoch
        self.display.start_phase(phase.name, total, done, settings.epochs)
        # the steps of descents are alike enough to tell from one how long the next takes
        descents = [other for other in later if isinstance(other, GradientPhase)]
        is_all = len(descents) == len(later)
        if is_all:
            total += sum(other.settings.epochs * len(other.batches) for other in descents)
        forecast = Forecast(total, done)
        while position.epoch < settings.epochs:
            phase.module.train()
            meter = Meter(phase, self.journal, self.display, self.processes, self.engine.on_nan)
            batches = phase.batches.epoch(position.epoch, position.batch)
            for batch, waited in _timed(batches):
                step_of_phase = position.epoch * steps_per_epoch + position.batch
                factor = learning_rate_factor(step_of_phase, steps_per_epoch, settings)
                rate = factor * settings.learning_rate
                terms, is_bad = descent.step(batch, rate)
                position.batch += 1
                position.step += 1
                step = MeteredStep(position.step, terms, is_bad, batch)
                meter.add(step, position.epoch + 1, waited, rate)
                # counted over the epoch, so that a resumed one writes at the same steps
                if position.batch % settings.log_interval == 0:
                    meter.flush()
                if position.batch < steps_per_epoch:  # the end of the epoch saves
                    self._look_up(descent, meter, interruption)
            meter.flush()
            position.epoch += 1
            position.batch = 0
            summary = self._end_epoch(phase, descent, meter)
            words = forecast.in_words(position.epoch * steps_per_epoch)
            of = "" if is_all else f" for {phase.name}"
            self.display.say(f"{summary} | {words}{of}" if words else summary)
            self._leave_if_asked(interruption)
        if descent.averaged is not None:
            descent.averaged.keep()

    def _look_up(self, descent: Descent, meter: Meter, interruption: Interruption) -> None:
        """Between two steps: save if it is time, leave if the user wants that."""
        engine = self.engine
        is_asked, is_old = self.processes.greatest(
            [int(interruption.requested or 0), int(self._is_old())]
        )
        is_due = engine.checkpoint_steps and self.position.step % engine.checkpoint_steps == 0
        # losses that were not looked at may not be finite: no checkpoint after those
        if is_asked or is_due:
            meter.flush()
        if is_asked or is_due or (is_old and meter.is_flushed):
            self._save(descent)
        self._leave_if_asked(interruption, is_asked)

    def _is_old(self) -> bool:
        minutes = self.engine.checkpoint_minutes
        return minutes is not None and time.monotonic() - self._last_saved > 60 * minutes

    def _leave_if_asked(self, interruption: Interruption, signal: int | None = None) -> None:
        """Leave after Ctrl-C or a termination signal that any of the processes met."""
        if signal is None:
            (signal,) = self.processes.greatest([int(interruption.requested or 0)])
        if signal:
            raise interruption.error(self.last, signal)

    def _end_epoch(self, phase: GradientPhase, descent: Descent, meter: Meter) -> str:
        """Evaluate and save; tells what there is to say of the epoch."""
        settings, position = phase.settings, self.position
        summary = f"{phase.name} epoch {position.epoch}/{settings.epochs}: {meter.summary()}"
        is_due = position.epoch % settings.evaluate_every == 0 or position.epoch == settings.epochs
        if self.evaluate is not None and is_due:
            with descent.with_averaged_weights():
                summary += f" | {self._judge(phase.name)}"
        self._save(descent)
        self.journal.write_table()
        return summary

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
        """Write the state between two phases."""
        self._save(None)

    def _save(self, descent: Descent | None) -> None:
        generators = self.processes.gather(generators_state())
        if self.processes.is_first:
            training = {
                "position": dict(vars(self.position)),
                "descent": None if descent is None else descent.state_dict(),
                "generators": generators,
            }
            content = {**self.identity, self.kind: self.model.state_dict(), "training": training}
            self.checkpoints.save(self.position.step, content)
        self._last_saved = time.monotonic()

    def _save_best(self, scores: Mapping[str, float]) -> None:
        if not self.processes.is_first:
            return
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
            self.run.display.step(done - self._shown[0])
        self._shown = (done, total)
        if self.interruption.requested:
            if self.run.processes.count == 1:  # others wait elsewhere; the state before stays
                self.run.save()
            raise self.interruption.error(self.run.last, self.interruption.requested)

    def say(self, message: str) -> None:
        self.run.display.say(f"{self.name}: {message}")


def _described(phase: Phase) -> str:
    if not isinstance(phase, GradientPhase):
        return phase.name
    epochs, steps = phase.settings.epochs, len(phase.batches)
    return f"{phase.name}, {counted(epochs, 'epoch')} of {counted(steps, 'step')}"


def peak_memory(device: torch.device) -> int | None:
    """The most memory in MiB that was in use so far: of a GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    try:
        import resource
    except ImportError:  # Windows has none
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10


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
