import pytest
import torch
from torch.testing import assert_close

from detect.backbones import create_backbone
from detect.data import fit_to_input
from detect.detectors import RCNN
from detect.detectors.proposing import FittedSource, find_in_batch
from detect.errors import DetectError
from detect.ops import box_iou
from detect.proposals import Proposals, RandomBoxes, SelectiveSearch, write_proposals
from detect.structures import Batch, GroundTruth, ImageMeta, InputSpec, Sample
from detect.training import GradientSettings, Plan
from tests.contracts import NoBatches, image_batch, some_truth
from tests.detectors.rcnn.training_images import SIZE, DrawnImages, Silent

NUM_CLASSES = 2
RANDOM = {"proposals": "random-boxes", "proposal_options": {"count": 40}}


def build(backbone="tiny", seed=0, **options) -> RCNN:
    torch.manual_seed(seed)
    settings = {"input_size": 64, "context": 4, **RANDOM, **options}
    return RCNN(create_backbone(backbone), NUM_CLASSES, **settings).eval()


def phases_of(detector, photos, cache):
    settings = {"finetune": GradientSettings()}
    return detector.phases(Plan(settings, lambda _: NoBatches(), photos, cache))


def fit(detector, photos, cache):
    """All phases that fit, one after another."""
    watch = Silent()
    for phase in phases_of(detector, photos, cache):
        if phase.name != "finetune":
            phase.fit(watch)
    return watch


@pytest.fixture
def truth():
    return some_truth(SIZE, NUM_CLASSES, 3)


# --- proposals ------------------------------------------------------------------------------------


def test_proposals_of_a_batch_are_taken_and_else_found():
    detector = build()
    batch = image_batch(SIZE, (GroundTruth.empty(),) * 2)
    found = find_in_batch(detector.proposal_source, batch)
    assert [len(boxes) for boxes in found] == [40, 40]
    given = Batch(batch.images, batch.truths, batch.metas, tuple(boxes[:7] for boxes in found))
    assert [len(boxes) for boxes in find_in_batch(detector.proposal_source, given)] == [7, 7]
    few = build(max_proposals=3).proposal_source
    assert [len(boxes) for boxes in find_in_batch(few, given)] == [3, 3]


@pytest.mark.parametrize("size", [(90, 40), (50, 120), (64, 64)])
def test_an_image_gives_the_same_boxes_beforehand_and_now(size):
    spec = InputSpec((96, 96), keep_aspect_ratio=True)
    source = FittedSource(SelectiveSearch(min_size=8), spec, 50)
    batch = image_batch(size, (GroundTruth.empty(),))
    image = batch.images[0].permute(1, 2, 0).contiguous().numpy()
    sample = Sample(image, GroundTruth.empty(), ImageMeta("0", None, size, size))
    beforehand = torch.from_numpy(source(image, "0"))
    assert len(beforehand) > 10
    assert (beforehand[:, 2:] <= torch.tensor([size[1], size[0]])).all()
    fitted = fit_to_input(sample, spec)
    (now,) = find_in_batch(source, Batch.from_samples([fitted]))
    assert_close(now, fitted.meta.to_input(beforehand), atol=1e-3, rtol=0)


def test_boxes_of_a_file_are_in_the_frame_of_the_image(tmp_path):
    boxes = torch.tensor([[10.0, 20.0, 30.0, 40.0], [0.0, 0.0, 100.0, 50.0]])
    proposals = Proposals.of_images({"0": boxes.numpy()}, {"method": "mine"})
    write_proposals(tmp_path / "boxes.npz", proposals)
    detector = build(proposals=str(tmp_path / "boxes.npz"), proposal_options={})
    meta = ImageMeta("0", None, (50, 100), (64, 64), (0.64, 0.64), (16.0, 0.0))
    batch = Batch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), (GroundTruth.empty(),), (meta,))
    (found,) = find_in_batch(detector.proposal_source, batch)
    assert_close(found, boxes * 0.64 + torch.tensor([0.0, 16.0, 0.0, 16.0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"proposals": "selectiv-search"}, "did you mean 'selective-search'"),
        ({"proposals": "nowhere.npz", "proposal_options": {}}, r"nowhere.npz: cannot be read"),
        ({"proposal_options": {"counts": 3}}, "proposal_options.counts: .* did you mean 'count'"),
        (
            {"proposals": "selective-search", "proposal_options": {"min_size": "abc"}},
            r"a value of {'min_size': 'abc'} has the wrong type",
        ),
        (
            {"proposals": "a.mat"},
            "proposal_options.count: a.mat has no such option; there are none: set",
        ),
    ],
)
def test_a_source_that_is_not_to_be_had(options, message):
    detector = build(**options)
    with pytest.raises(DetectError, match=message):
        _ = detector.proposal_source


# --- windows --------------------------------------------------------------------------------------


def test_windows_are_a_quarter_objects_at_most(truth):
    detector = build(windows_per_step=40, proposal_options={"count": 400})
    batch = image_batch(SIZE, (truth, GroundTruth.empty()))
    windows = detector._sample_windows(batch)
    assert len(windows.labels) == 40
    is_object = windows.labels < NUM_CLASSES
    assert 3 <= is_object.sum() <= 10
    assert (windows.image_index[is_object] == 0).all()  # the other image has no objects
    iou = box_iou(windows.boxes, truth.boxes)
    best, meant = iou.max(dim=1)
    assert (best[is_object] >= 0.5).all()
    assert torch.equal(windows.labels[is_object], truth.labels[meant[is_object]])
    background = ~is_object & (windows.image_index == 0)
    assert (best[background] < 0.5).all()
    assert {0, 1} == set(windows.image_index.tolist())


def test_an_image_without_any_region_teaches_nothing():
    detector = build()
    batch = image_batch(SIZE, (GroundTruth.empty(),))
    batch = Batch(batch.images, batch.truths, batch.metas, (torch.zeros(0, 4),))
    loss = detector.train().loss(batch)["classification"]
    loss.backward()
    assert float(loss.detach()) == 0
    assert len(detector.detect(batch)[0]) == 0


def test_beyond_an_image_is_the_mean_color():
    detector = build()
    meta = ImageMeta("0", None, (32, 64), (64, 64), (1.0, 1.0), (16.0, 0.0))
    images = torch.full((1, 3, 64, 64), 114, dtype=torch.uint8)
    images[:, :, 16:48] = 255
    photos = detector.images(Batch(images, (GroundTruth.empty(),), (meta,)))
    mean = detector.backbone.mean.flatten()
    assert_close(photos[0, :, 15, 5], mean)
    assert_close(photos[0, :, 48, 5], mean)
    assert (photos[0, :, 16:48] == 1).all()


# --- the phases that fit --------------------------------------------------------------------------


def test_the_phases_are_the_papers(tmp_path):
    def names(**options):
        return [phase.name for phase in phases_of(build(**options), DrawnImages(), tmp_path)]

    assert names() == ["finetune", "features", "svms", "box_regression"]
    assert names(finetune=False) == ["features", "svms", "box_regression"]
    assert names(svm=False) == ["finetune", "features", "box_regression"]
    assert names(box_regression=False) == ["finetune", "features", "svms"]
    assert names(svm=False, box_regression=False) == ["finetune"]


@pytest.mark.parametrize("layer", ["trunk", "head"])
def test_the_fitted_layers_do_not_depend_on_where_features_are_kept(layer, tmp_path):
    photos = DrawnImages(6)
    kept, streamed = build(feature_layer=layer), build(feature_layer=layer, feature_cache="none")
    said = fit(kept, photos, tmp_path)
    fit(streamed, photos, tmp_path)
    # other rows go through the network together, which rounds otherwise, to half precision at that
    batch = next(iter(DrawnImages(6).batches(3)))
    mine, theirs = kept.detect(batch)[0], streamed.detect(batch)[0]
    assert_close(mine.scores, theirs.scores, atol=5e-3, rtol=0)
    assert_close(kept.svms.bias, streamed.svms.bias, atol=5e-3, rtol=0)
    assert kept.svms.weight.any()
    assert kept.regressors.bias.any()
    assert "6 images × " in said.lines[0]
    assert not list(tmp_path.iterdir())  # what was kept is given back


def test_features_of_fc6():
    detector = build("alexnet_owt", feature_layer="fc6")
    crops = torch.rand(2, 3, 224, 224)
    features, trunk = detector.embed(crops)
    head = detector.backbone.head
    grid = detector.backbone.pooled_to_grid(detector.backbone(crops))
    linear = next(layer for layer in head.modules() if isinstance(layer, torch.nn.Linear))
    assert_close(features, linear(grid.flatten(1)).relu())
    assert_close(trunk, grid.flatten(1))
    with pytest.raises(DetectError, match=r"fc6 is the first of two .* expected trunk or head"):
        build(feature_layer="fc6")


def test_other_settings_have_another_address(tmp_path):
    addresses = set()
    variants = [
        {},
        {"feature_layer": "trunk"},
        {"context": 5},
        {"warp": "square"},
        {"max_proposals": 5},
        {"regression_iou": 0.5},
        {"box_regression": False},
        {"seed": 1},
    ]
    for options in variants:
        regions = phases_of(build(**options), DrawnImages(), tmp_path)[1].fit.__self__
        addresses.add(regions._address())
    other = phases_of(build(), DrawnImages(seed=1), tmp_path)[1].fit.__self__
    addresses.add(other._address())
    assert len(addresses) == len(variants) + 1
    again = phases_of(build(), DrawnImages(), tmp_path)[1].fit.__self__
    assert again._address() in addresses


# --- detection ------------------------------------------------------------------------------------


def with_layers(**options):
    """A detector whose fitted layers have numbers."""
    detector = build(**options)
    generator = torch.Generator().manual_seed(0)
    for layer in (detector.svms, detector.regressors):
        layer.weight.data = 0.1 * torch.randn(layer.weight.shape, generator=generator)
    detector.has_svms.fill_(True)
    detector.has_regressors.fill_(True)
    return detector


def test_detections_are_what_the_paper_says():
    detector = with_layers(score_threshold=-0.5)
    batch = image_batch(SIZE, (GroundTruth.empty(),))
    (found,) = detector.detect(batch)
    (proposals,) = find_in_batch(detector.proposal_source, batch)
    crops = detector.warped(
        detector.images(batch), proposals, torch.zeros(len(proposals), dtype=torch.int64)
    )
    with torch.no_grad():
        features, trunk = detector.embed(crops)
        scores = detector.svms(features)
        deltas = detector.regressors(trunk).view(-1, NUM_CLASSES, 4)
    candidates = []
    for row in range(len(proposals)):
        for label in range(NUM_CLASSES):
            x1, y1, x2, y2 = proposals[row].tolist()
            dx, dy, dw, dh = deltas[row, label].tolist()
            width, height = x2 - x1, y2 - y1
            x, y = x1 + width / 2 + dx * width, y1 + height / 2 + dy * height
            width, height = width * 2.718281828**dw, height * 2.718281828**dh
            box = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
            box = [min(max(value, 0.0), 64.0) for value in box]
            if scores[row, label] >= -0.5:
                candidates.append((float(scores[row, label]), label, box))
    candidates.sort(key=lambda candidate: -candidate[0])
    kept = []
    for score, label, box in candidates:
        same = [other for _, known, other in kept if known == label]
        if not same or box_iou(torch.tensor([box]), torch.tensor(same)).max() <= 0.3:
            kept.append((score, label, box))
    assert len(kept) > 3
    assert found.labels.tolist() == [label for _, label, _ in kept[:100]]
    assert_close(
        found.scores, torch.tensor([score for score, _, _ in kept[:100]]), atol=1e-4, rtol=0
    )
    assert_close(found.boxes, torch.tensor([box for _, _, box in kept[:100]]), atol=1e-3, rtol=1e-4)


def test_each_part_can_be_switched_off():
    batch = image_batch(SIZE, (GroundTruth.empty(),))
    (proposals,) = find_in_batch(build().proposal_source, batch)
    plain = with_layers(box_regression=False).detect(batch)[0]
    assert all(any(torch.equal(box, own) for own in proposals) for box in plain.boxes)
    softmax = with_layers(svm=False).detect(batch)[0]
    assert (softmax.scores > 0).all()
    assert (softmax.scores < 1).all()


def test_what_was_not_trained_is_said():
    detector = build()
    assert "its SVMs and box regressors have not been trained" in detector.lacks()
    assert "set detector.svm=false detector.box_regression=false" in detector.lacks()
    assert build(svm=False, box_regression=False).lacks() is None
    assert with_layers().lacks() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": 32}, "context: expected 0 or more and less than half of the 64 pixels"),
        ({"max_proposals": 0}, "max_proposals: expected 1 or more, found 0"),
        ({"mining_epochs": 0}, "mining_epochs: expected 1 or more"),
    ],
)
def test_settings_that_make_no_sense(options, message):
    with pytest.raises(DetectError, match=message):
        build(**options)


def test_random_boxes_are_what_the_tests_think():
    assert len(RandomBoxes(count=40)(torch.zeros(64, 64, 3).byte().numpy(), "0")) == 40
