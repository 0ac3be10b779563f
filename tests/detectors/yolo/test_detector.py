import pytest
import torch

from detect.backbones import create_backbone
from detect.detectors import YOLO
from detect.errors import DetectError
from detect.structures import GroundTruth
from tests.contracts import image_batch, some_truth


def yolo(**options) -> YOLO:
    torch.manual_seed(0)
    return YOLO(create_backbone("tiny"), 3, **options)


def test_paper_tensor_has_the_papers_shape():
    """448 pixels, S = 7, B = 2, C = 20: the 7×7×30 of section 2."""
    torch.manual_seed(0)
    detector = YOLO(create_backbone("yolo_darknet_fast"), 20, hidden_features=8)
    output = detector(image_batch((448, 448), (GroundTruth.empty(),)))
    assert output.shape == (1, 7, 7, 30)


def test_fully_connected_head_is_two_layers_with_dropout():
    kinds = [type(layer).__name__ for layer in yolo(input_size=64).head.layers]
    assert kinds == ["Flatten", "Linear", "LeakyReLU", "Dropout", "Linear"]


@pytest.mark.parametrize(("stride", "shape"), [(None, (4, 6)), (16, (4, 6)), (8, (8, 12))])
def test_convolutional_grid_follows_the_stride(stride: int | None, shape: tuple[int, int]):
    detector = yolo(input_size=(64, 96), head="convolutional", grid_stride=stride)
    assert (detector.grid.rows, detector.grid.columns) == shape
    output = detector(image_batch((64, 96), (GroundTruth.empty(),)))
    assert output.shape == (1, *shape, 13)


def test_unknown_stride_names_those_of_the_backbone():
    with pytest.raises(DetectError, match=r"grid_stride: .*\(4, 8, 16\), found 32"):
        yolo(input_size=64, head="convolutional", grid_stride=32)


def test_input_of_another_size_is_refused():
    with pytest.raises(ValueError, match="64×64"):
        yolo(input_size=64)(image_batch((96, 96), (GroundTruth.empty(),)))


def test_head_of_the_backbone_is_dropped():
    assert not any(name.startswith("backbone.head") for name in yolo(input_size=64).state_dict())


def test_modern_confidences_start_low():
    detector = yolo(input_size=64, head="convolutional", variant="modern").eval()
    output = detector(image_batch((64, 64), (GroundTruth.empty(),)))
    confidences = output.unflatten(-1, (13,))[..., [4, 9]].sigmoid()
    assert confidences.median() < 0.05


def test_no_candidate_gives_empty_detections():
    detector = yolo(input_size=64, score_threshold=1.0)
    assert [
        len(found) for found in detector.detect(image_batch((64, 64), (GroundTruth.empty(),) * 2))
    ] == [0, 0]


def test_many_objects_and_extreme_shapes_give_a_finite_loss():
    detector = yolo(input_size=(16, 512), head="convolutional", variant="modern").train()
    truth = some_truth((16, 512), 3, 300)
    terms = detector.loss(image_batch((16, 512), (truth,)))
    assert all(term.isfinite() for term in terms.values())
