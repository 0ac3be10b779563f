"""A network, images and a display that take no time, for tests of the training loop."""

import io

import torch
from rich.console import Console
from torch import nn

from detect.structures import Batch, GroundTruth, ImageMeta
from detect.training import (
    EngineSettings,
    GradientPhase,
    GradientSettings,
    ProgressDisplay,
    TrainingRun,
)

BATCHES = 5
BATCH_SIZE = 4
CPU = torch.device("cpu")


class Brightness(nn.Module):
    """Learns the mean brightness and the contrast of 8×8 images; has dropout and BatchNorm."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = nn.Sequential(
                nn.Flatten(), nn.Linear(192, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5)
            )
            self.output = nn.Linear(16, 2)

    def forward(self, batch):
        return self.output(self.body(batch.unit_images()))

    def loss(self, batch):
        images = batch.unit_images().flatten(1)
        error = self(batch) - torch.stack((images.mean(dim=1), images.std(dim=1)), dim=1)
        mean, contrast = error.square().mean(dim=0)
        return {"mean": mean, "contrast": contrast * 0.5}


class Images:
    """A source of batches that are drawn from the epoch's number alone."""

    def __init__(self, num_batches=BATCHES):
        self.num_batches = num_batches
        self.taken = []  # (epoch, first batch) of each call

    def __len__(self):
        return self.num_batches

    def epoch(self, epoch, start=0):
        self.taken.append((epoch, start))
        return [self.batch(epoch, index) for index in range(start, self.num_batches)]

    def explain(self, error):
        return error

    def batch(self, epoch, index):
        generator = torch.Generator().manual_seed(1000 * epoch + index)
        darkness = torch.rand(BATCH_SIZE, 1, 1, 1, generator=generator)
        images = torch.rand(BATCH_SIZE, 3, 8, 8, generator=generator) * darkness * 255
        names = [f"image_{epoch}_{index}_{number}" for number in range(BATCH_SIZE)]
        return Batch(
            images.to(torch.uint8),
            (GroundTruth.empty(),) * BATCH_SIZE,
            tuple(ImageMeta(name, None, (8, 8), (8, 8)) for name in names),
        )


def quiet_display():
    return ProgressDisplay(Console(file=io.StringIO()))


def make_settings(**changes):
    common = {"epochs": 3, "batch_size": BATCH_SIZE, "learning_rate": 0.05, "log_interval": 1}
    return GradientSettings(**{**common, **changes})


def make_phase(module, settings=None, *, name="train", loss=None, batches=None):
    return GradientPhase(
        name, module, loss or module.loss, batches or Images(), settings or make_settings()
    )


def make_run(module, folder, evaluate=None, display=None, identity=None, **engine):
    identity = {"class_names": ["one"]} if identity is None else identity
    display = display or quiet_display()
    engine = EngineSettings(**engine)
    return TrainingRun(module, folder, CPU, identity, evaluate, display, engine=engine)
