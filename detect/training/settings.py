"""The settings of a gradient descent, and of the engine that all phases of a run share."""

from dataclasses import dataclass
from typing import Literal

from detect.errors import DetectError


@dataclass(frozen=True)
class GradientSettings:
    """How a phase descends on its loss. The fields are the keys of a config's `training` section.

    Attributes:
        epochs: passes over the training split.
        batch_size: images per step.
        optimizer: `sgd` (with momentum) or `adamw`.
        learning_rate: at its highest.
        momentum: of SGD; beta_1 of AdamW.
        weight_decay: on weights; biases and normalization parameters are not decayed.
        schedule: of the learning rate after warm-up: `constant`; `step` multiplies it by `gamma` at
            each of `milestones`; `cosine` falls to 0; `one_cycle` rises over the first 30 % of all
            steps and falls to 0 (Smith & Topin 2018), without a warm-up of its own.
        milestones: epochs after which `step` acts.
        gamma: factor of `step`.
        warmup_epochs: over which the learning rate rises linearly; fractions are allowed.
        warmup_factor: share of the learning rate that the warm-up starts from.
        gradient_clip: greatest norm of the gradient over all parameters; None leaves it alone.
        accumulate: parts that the images of a step go through the network in, one after another;
            their gradients add up to the step's. Less memory for the same step, except that
            BatchNorm and losses over a number of objects see a part at a time.
        ema_decay: of an exponential moving average of the weights, which is evaluated and kept in
            their place; None trains without. Usual: 0.999 to 0.9999, less for short trainings.
        evaluate_every: epochs between evaluations; the last epoch is always evaluated.
        log_interval: steps between lines of metrics.
    """

    epochs: int = 100
    batch_size: int = 16
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0005
    schedule: Literal["constant", "step", "cosine", "one_cycle"] = "cosine"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    warmup_epochs: float = 1.0
    warmup_factor: float = 0.1
    gradient_clip: float | None = 10.0
    accumulate: int = 1
    ema_decay: float | None = None
    evaluate_every: int = 1
    log_interval: int = 10

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "evaluate_every", "log_interval"):
            if getattr(self, name) < 1:
                raise DetectError(
                    f"training.{name}: expected 1 or more, found {getattr(self, name)}"
                )
        for name in ("learning_rate", "gamma", "warmup_factor", "gradient_clip"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise DetectError(f"training.{name}: expected more than 0, found {value}")
        if not 0 <= self.momentum < 1:
            raise DetectError(
                f"training.momentum: expected 0 or more and less than 1, found {self.momentum}"
            )
        for name in ("weight_decay", "warmup_epochs"):
            if not getattr(self, name) >= 0:
                raise DetectError(
                    f"training.{name}: expected 0 or more, found {getattr(self, name)}"
                )
        if self.accumulate > self.batch_size:
            raise DetectError(
                f"training.accumulate: expected at most the {self.batch_size} images of a step "
                f"(training.batch_size), found {self.accumulate}"
            )
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise DetectError(
                f"training.ema_decay: expected more than 0 and less than 1, found {self.ema_decay}"
            )
        if self.schedule == "step" and not self.milestones:
            raise DetectError(
                "training.milestones: the schedule 'step' needs the epochs at which it acts, "
                "for example [75, 105]"
            )


@dataclass(frozen=True)
class EngineSettings:
    """How a run computes and what it writes. The fields are the keys of the `engine` section.

    None of them changes what is learned by more than rounding, but for `on_nan`.

    Attributes:
        precision: of the forward pass in training: `float32`; `mixed` is `bfloat16` where the
            device computes in it, else `float16` on a GPU and `float32` on a CPU; `float16` scales
            the loss so that small gradients survive (Micikevicius et al. 2018). Weights, evaluation
            and inference are float32 always.
        channels_last: keep images and maps with the channels last in memory.
        compile: compile the backbone for training (torch.compile); takes minutes at the start.
        gradient_checkpointing: forget the maps within each level of the backbone and compute them
            again for the gradient (Chen et al. 2016): less memory, about a third more time.
        sync_batch_norm: over several processes, BatchNorm's statistics are those of all of them.
        deterministic: refuse operations whose result differs between two runs of the same. A GPU
            needs it for a continued run to end in the same bits; on a CPU it does anyway.
        on_nan: what a loss that is not finite does: `stop` ends the run, `skip` leaves out the
            step.
        checkpoint_steps: steps between writings of the state; None writes by time alone.
        checkpoint_minutes: minutes between writings of the state; None writes at the end of
            epochs alone, which is done always.
        keep: how many states stay.
    """

    precision: Literal["float32", "mixed", "bfloat16", "float16"] = "float32"
    channels_last: bool = True
    compile: bool = False
    gradient_checkpointing: bool = False
    sync_batch_norm: bool = False
    deterministic: bool = False
    on_nan: Literal["stop", "skip"] = "stop"
    checkpoint_steps: int | None = None
    checkpoint_minutes: float | None = 5.0
    keep: int = 2

    def __post_init__(self) -> None:
        for name in ("checkpoint_steps", "keep"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DetectError(f"engine.{name}: expected 1 or more, found {value}")
        if self.checkpoint_minutes is not None and not self.checkpoint_minutes > 0:
            raise DetectError(
                f"engine.checkpoint_minutes: expected more than 0, found {self.checkpoint_minutes}"
            )
