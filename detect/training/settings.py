"""The settings of one gradient descent."""

from dataclasses import dataclass
from typing import Literal

from detect.errors import DetectError


@dataclass(frozen=True)
class GradientSettings:
    """How a phase descends on its loss. The fields are the keys of a config's `training` section.

    Attributes:
        epochs: passes over the training split.
        batch_size: pictures per step.
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
    evaluate_every: int = 1
    log_interval: int = 10

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "evaluate_every", "log_interval"):
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
        if self.schedule == "step" and not self.milestones:
            raise DetectError(
                "training.milestones: the schedule 'step' needs the epochs at which it acts, "
                "for example [75, 105]"
            )
