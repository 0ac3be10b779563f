"""The learning rate as a function of the step, so that resuming needs no state of its own."""

import math

from detect.training.settings import GradientSettings

# Shape of one-cycle: Smith & Topin 2018 as in torch.optim.lr_scheduler.OneCycleLR's defaults, but
# for the end: 0.
ONE_CYCLE_RISE = 0.3
ONE_CYCLE_START = 1 / 25


def learning_rate_factor(step: int, steps_per_epoch: int, settings: GradientSettings) -> float:
    """Share of `settings.learning_rate` to use at `step` (from 0) of a phase, in 0…1."""
    total = settings.epochs * steps_per_epoch
    if settings.schedule == "one_cycle":
        return _one_cycle(step, total)
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return settings.warmup_factor + (1 - settings.warmup_factor) * step / warmup
    if settings.schedule == "step":
        epoch = step // steps_per_epoch
        return settings.gamma ** sum(epoch >= milestone for milestone in settings.milestones)
    if settings.schedule == "cosine":
        return _cosine(1.0, 0.0, (step - warmup) / max(total - warmup, 1))
    return 1.0


def _one_cycle(step: int, total: int) -> float:
    top = max(ONE_CYCLE_RISE * total - 1, 0.0)  # the last of the first 30 % of all steps
    if step < top:
        return _cosine(ONE_CYCLE_START, 1.0, step / top)
    return _cosine(1.0, 0.0, (step - top) / max(total - 1 - top, 1))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
