import pytest
import torch
from sklearn.linear_model import Ridge
from torch.testing import assert_close

from detect.detectors.rcnn.box_regression import fit_box_regressors


@pytest.mark.parametrize(("num_rows", "dim"), [(40, 7), (12, 30)])
@pytest.mark.parametrize("strength", [1.0, 1000.0])
def test_the_solution_is_that_of_a_library(num_rows, dim, strength):
    torch.manual_seed(0)
    features = torch.randn(num_rows, dim) + 1
    classes = torch.arange(num_rows) % 2
    deltas = 0.1 * torch.randn(num_rows, 4) + 0.2
    found = fit_box_regressors(features, deltas, classes, 3, strength)
    scale = 20 / features.norm(dim=1).mean()
    for label in (0, 1):
        rows = classes == label
        targets = deltas[rows].double()
        middle = targets.mean(dim=0)
        inputs = torch.cat((features[rows] * scale, torch.ones(int(rows.sum()), 1)), dim=1).double()
        library = Ridge(strength, fit_intercept=False, solver="svd").fit(inputs, targets - middle)
        expected = torch.from_numpy(library.predict(inputs)) + middle
        predicted = features[rows] @ found.weight[label].T + found.bias[label]
        assert_close(predicted, expected.float(), atol=1e-5, rtol=1e-4)


def test_a_class_without_examples_leaves_boxes_as_they_are():
    found = fit_box_regressors(torch.ones(2, 3), torch.ones(2, 4), torch.tensor([1, 1]), 3, 1.0)
    assert not found.weight[[0, 2]].any()
    assert not found.bias[[0, 2]].any()
    assert_close(found.bias[1] + found.weight[1].sum(dim=1), torch.ones(4))


def test_no_examples_at_all():
    found = fit_box_regressors(
        torch.zeros(0, 3, dtype=torch.float16), torch.zeros(0, 4), torch.zeros(0).long(), 2, 1.0
    )
    assert found.weight.shape == (2, 4, 3)
    assert not found.bias.any()


def test_half_precision_gives_the_same():
    torch.manual_seed(0)
    features, deltas = torch.randn(30, 4).half(), torch.randn(30, 4)
    classes = torch.zeros(30, dtype=torch.int64)
    half = fit_box_regressors(features, deltas, classes, 1, 10.0)
    full = fit_box_regressors(features.float(), deltas, classes, 1, 10.0)
    assert_close(half.weight, full.weight)
