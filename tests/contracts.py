"""What every detector must do, whatever its backbone. Imported by the tests of detectors."""

import io
from collections.abc import Iterator

import torch
from torch.testing import assert_close

from detect.detectors import Detector, predict
from detect.structures import Batch, GroundTruth, ImageMeta


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


def check_detections_are_legal(detector: Detector) -> None:
    size = detector.input_spec.size
    originals = ((30, 50), (200, 90))
    batch = image_batch(size, (GroundTruth.empty(),) * 2, originals)
    for found, (height, width) in zip(predict(detector, batch), originals, strict=True):
        assert (found.boxes[:, :2] >= 0).all()
        assert (found.boxes[:, 2] <= width).all()
        assert (found.boxes[:, 3] <= height).all()
        assert (found.labels < detector.num_classes).all()


def check_batch_equals_single_images(detector: Detector) -> None:
    batch = image_batch(detector.input_spec.size, (GroundTruth.empty(),) * 2)
    together = detector.detect(batch)
    for row, found in enumerate(together):
        single = Batch(batch.images[row : row + 1], batch.truths[:1], batch.metas[row : row + 1])
        alone = detector.detect(single)[0]
        # convolutions of another batch size round otherwise, which may swap near-equal scores
        assert_close(alone.scores, found.scores, atol=1e-4, rtol=1e-4)


def check_mode_does_not_change_detections(detector: Detector) -> None:
    batch = image_batch(detector.input_spec.size, (GroundTruth.empty(),))
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    found = []
    for mode in (True, False):
        detector.train(mode)
        found.append(detector.detect(batch)[0])
        assert detector.training is mode
    assert_close(found[0].boxes, found[1].boxes)
    assert_close(found[0].scores, found[1].scores)
    for name, value in detector.state_dict().items():
        assert torch.equal(value, before[name]), name


def check_save_and_load(detector: Detector, other: Detector) -> None:
    """`other` is built alike and has other weights."""
    file = io.BytesIO()
    torch.save(detector.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    batch = image_batch(detector.input_spec.size, (GroundTruth.empty(),))
    mine, theirs = detector.detect(batch)[0], other.detect(batch)[0]
    assert_close(mine.boxes, theirs.boxes)
    assert_close(mine.scores, theirs.scores)
    assert torch.equal(mine.labels, theirs.labels)


class NoBatches:
    """A source of training images that has none, where only the phases themselves matter."""

    def __len__(self) -> int:
        return 1

    def explain(self, error: Exception) -> Exception:
        return error

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:  # noqa: ARG002
        return iter(())
