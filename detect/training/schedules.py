"""The learning rate as a function of the step, so that resuming needs no state of its own."""

import math

from detect.training.settings import GradientSettings

# Shape of one-cycle: Smith & Topin 2018 as in torch.optim.lr_scheduler.OneCycleLR's defaults.
ONE_CYCLE_RISE = 0.3
ONE_CYCLE_START = 1 / 25


def learning_rate_factor(step: int, steps_per_epoch: int, settings: GradientSettings) -> float:
    """Share of `settings.learning_rate` to use at `step` (from 0) of a phase, in 0…1."""
    total = settings.epochs * steps_per_epoch
    if settings.schedule == "one_cycle":
        return _one_cycle(step / max(total - 1, 1))
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return settings.warmup_factor + (1 - settings.warmup_factor) * step / warmup
    if settings.schedule == "step":
        epoch = step // steps_per_epoch
        return settings.gamma ** sum(epoch >= milestone for milestone in settings.milestones)
    if settings.schedule == "cosine":
        return _cosine(1.0, 0.0, (step - warmup) / max(total - warmup, 1))
    return 1.0


def _one_cycle(progress: float) -> float:
    if progress < ONE_CYCLE_RISE:
        return _cosine(ONE_CYCLE_START, 1.0, progress / ONE_CYCLE_RISE)
    return _cosine(1.0, 0.0, (progress - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
