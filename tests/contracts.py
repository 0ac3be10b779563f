"""What every detector must do, whatever its backbone. Imported by the tests of detectors."""

import io
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch.testing import assert_close

from detect.detectors import Detector, predict
from detect.structures import Batch, Detections, GroundTruth, ImageMeta


def image_batch(
    size: tuple[int, int],
    truths: tuple[GroundTruth, ...],
    original_sizes: tuple[tuple[int, int], ...] | None = None,
    seed: int = 0,
) -> Batch:
    """Noise with the given truths; original sizes other than `size` as if stretched to it."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (len(truths), 3, *size), dtype=torch.uint8, generator=generator)
    originals = original_sizes or (size,) * len(truths)
    metas = tuple(
        ImageMeta(str(i), None, original, size, (size[0] / original[0], size[1] / original[1]))
        for i, original in enumerate(originals)
    )
    return Batch(images, truths, metas)


def some_truth(size: tuple[int, int], num_classes: int, count: int, seed: int = 0) -> GroundTruth:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator).sort(dim=1).values
    scale = torch.tensor([size[1], size[0]], dtype=torch.float32)
    low, high = corners[:, 0] * scale * 0.8, corners[:, 1] * scale
    boxes = torch.cat((low, torch.maximum(high, low + 4)), dim=1)
    labels = torch.randint(0, num_classes, (count,), generator=generator)
    return GroundTruth(boxes, labels, torch.zeros(count, dtype=torch.bool))


def check_loss_is_finite_and_reaches_every_parameter(detector: Detector) -> None:
    detector.train()
    size = detector.input_spec.size
    truths = tuple(some_truth(size, detector.num_classes, 3, seed) for seed in range(2))
    detector.zero_grad()
    terms = detector.loss(image_batch(size, truths))
    assert terms
    for name, term in terms.items():
        assert term.ndim == 0, name
        assert term.isfinite(), name
    sum(terms.values()).backward()
    without = [
        name
        for name, parameter in detector.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]
    assert not without


def check_images_without_objects(detector: Detector) -> None:
    detector.train()
    size = detector.input_spec.size
    for truths in (
        (GroundTruth.empty(), GroundTruth.empty()),
        (GroundTruth.empty(), some_truth(size, detector.num_classes, 2)),
    ):
        detector.zero_grad()
        total = sum(detector.loss(image_batch(size, truths)).values())
        assert total.isfinite()
        total.backward()
        for parameter in detector.parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all()


def check_detections_are_legal(detector: Detector, *, finds: bool = True) -> None:
    """`finds` says whether there must be some: a deep network of drawn weights may give none."""
    size = detector.input_spec.size
    originals = ((30, 50), (200, 90))
    batch = image_batch(size, (GroundTruth.empty(),) * 2, originals)
    for found, (height, width) in zip(predict(detector, batch), originals, strict=True):
        assert len(found) or not finds
        assert (found.boxes[:, :2] >= 0).all()
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
        assert (found.boxes[:, 2] <= width).all()
        assert (found.boxes[:, 3] <= height).all()
        assert ((found.labels >= 0) & (found.labels < detector.num_classes)).all()
        assert (found.scores[1:] <= found.scores[:-1]).all()


def unlike_images(size: tuple[int, int]) -> Batch:
    """Noise, and a picture that is dark above and light below, each of the input's size."""
    noise = image_batch(size, (GroundTruth.empty(),) * 2)
    images = noise.images.clone()
    images[1] = 255 - images[1] // 8
    images[1, :, : size[0] // 2] //= 6
    images[1, 0] //= 2
    return replace(noise, images=images)


def distance(one: Detections, other: Detections) -> float:
    """How far each detection is from the nearest one of the other list, at most.

    1 is a twentieth of a pixel, or 0.0001 of the score; another label is infinitely far.
    """
    return max(farthest(one, other), farthest(other, one))


def farthest(one: Detections, other: Detections) -> float:
    """How far the detections of `one` are from the nearest one of `other`, at most."""
    nearest = []
    for rows in torch.arange(len(one)).split(500):  # there may be ten thousand
        scores = (one.scores[rows, None] - other.scores).abs()
        scores = scores / (1e-4 * (1 + other.scores.abs()))
        boxes = torch.cdist(one.boxes[rows], other.boxes, p=torch.inf) / 0.05
        apart = torch.maximum(scores, boxes)
        apart[one.labels[rows, None] != other.labels] = torch.inf
        nearest.append(apart.amin(dim=1))
    return torch.cat(nearest).max().item()


def check_batch_equals_single_images(detector: Detector, *, finds: bool = True) -> None:
    """`finds` as above; without it, only scores are compared: depth multiplies the rounding."""
    batch = unlike_images(detector.input_spec.size)
    together = detector.detect(batch)
    alone = [detector.detect(part)[0] for part in batch.parts(2)]
    for found, own, other in zip(together, alone, reversed(alone), strict=True):
        # convolutions of another batch size round otherwise, which may swap near-equal scores
        assert_close(own.scores, found.scores, atol=1e-4, rtol=1e-4)
        if not finds:
            continue
        assert len(found)
        assert distance(found, own) < 1
        # what is found in the other image would be noticed
        assert distance(found, own) * 10 < distance(found, other)


def check_mode_does_not_change_detections(detector: Detector) -> None:
    batch = image_batch(detector.input_spec.size, (GroundTruth.empty(),))
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    found = []
    for mode in (True, False):
        detector.train(mode)
        found.append(detector.detect(batch)[0])
        assert detector.training is mode
    assert_same(*found)
    for name, value in detector.state_dict().items():
        assert torch.equal(value, before[name]), name


def check_save_and_load(detector: Detector, other: Detector) -> None:
    """`other` is built alike and has other weights."""
    batch = image_batch(detector.input_spec.size, (GroundTruth.empty(),))
    for mine, theirs in zip(detector.parameters(), other.parameters(), strict=True):
        assert not torch.equal(mine, theirs)
    file = io.BytesIO()
    torch.save(detector.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert_same(detector.detect(batch)[0], other.detect(batch)[0])


def assert_same(one: Detections, other: Detections) -> None:
    """The same detections, of which there are some."""
    assert len(one)
    assert_close(one.boxes, other.boxes)
    assert_close(one.scores, other.scores)
    assert torch.equal(one.labels, other.labels)


class NoBatches:
    """A source of training images that has none, where only the phases themselves matter."""

    def __len__(self) -> int:
        return 1

    def explain(self, error: Exception) -> Exception:
        return error

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:  # noqa: ARG002
        return iter(())
