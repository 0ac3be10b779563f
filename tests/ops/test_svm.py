import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC
from torch.testing import assert_close

from detect.ops.svm import fit_linear_svms

NUM_EXAMPLES, DIM, NUM_CLASSES = 400, 12, 3


def examples(seed=0, num_examples=NUM_EXAMPLES):
    """Features of very different sizes, and classes that overlap, most examples negative."""
    generator = torch.Generator().manual_seed(seed)
    scales = 3 * torch.rand(DIM, generator=generator)
    features = torch.randn(num_examples, DIM, generator=generator) * scales
    truth = torch.randn(DIM, NUM_CLASSES, generator=generator)
    noise = 3 * torch.randn(num_examples, NUM_CLASSES, generator=generator)
    targets = torch.where(features @ truth + noise > 5, 1, -1)
    return features, targets


def objective_of(weight, bias, features, targets, cost, loss, positive_weight=1.0, bias_scale=1.0):
    """The problem as the module's docstring has it, in float64, for one class."""
    weight, features, targets = weight.double(), features.double(), targets.double()
    slack = (1 - targets * (features @ weight + float(bias))).clamp(min=0)
    losses = slack.square() if loss == "squared_hinge" else slack
    costs = cost * torch.where(targets > 0, positive_weight, 1.0) * (targets != 0)
    regularization = (weight.square().sum() + (float(bias) / bias_scale) ** 2) / 2
    return float(regularization + (costs * losses).sum())


def library_fit(features, targets, cost, loss, positive_weight=1.0, bias_scale=1.0):
    """Weight and bias of one class by LIBLINEAR."""
    machine = LinearSVC(
        C=cost,
        loss=loss,
        dual=loss == "hinge",
        intercept_scaling=bias_scale,
        class_weight={1: positive_weight, -1: 1.0},
        tol=1e-6,
        max_iter=1_000_000,
        random_state=0,
    ).fit(features.double().numpy(), targets.numpy())
    return torch.from_numpy(machine.coef_[0]), float(machine.intercept_[0])


@pytest.mark.parametrize("loss", ["squared_hinge", "hinge"])
@pytest.mark.parametrize("cost", [0.001, 0.1, 2.0])
@pytest.mark.parametrize(("positive_weight", "bias_scale"), [(1.0, 1.0), (2.0, 10.0)])
def test_the_solution_is_that_of_liblinear(loss, cost, positive_weight, bias_scale):
    features, targets = examples()
    found = fit_linear_svms(
        features,
        targets,
        cost=cost,
        loss=loss,
        positive_weight=positive_weight,
        bias_scale=bias_scale,
        tolerance=1e-5,  # LIBLINEAR's, below, is finer than its default too
    )
    options = (cost, loss, positive_weight, bias_scale)
    for row in range(NUM_CLASSES):
        own = targets[:, row]
        weight, bias = library_fit(features, own, *options)
        expected = objective_of(weight, bias, features, own, *options)
        value = objective_of(found.weight[row], found.bias[row], features, own, *options)
        assert float(found.objective[row]) == pytest.approx(value, rel=1e-5)
        assert value == pytest.approx(expected, rel=1e-3)  # neither is exact
        outputs = features @ found.weight[row] + found.bias[row]
        theirs = features.double() @ weight + bias
        sure = theirs.abs() > 0.02 * theirs.std()
        assert ((outputs > 0) == (theirs > 0))[sure].all()


@pytest.mark.parametrize("loss", ["squared_hinge", "hinge"])
def test_the_gap_bounds_what_is_left(loss):
    features, targets = examples(1)
    rough = fit_linear_svms(features, targets, loss=loss, tolerance=0.1)
    fine = fit_linear_svms(features, targets, loss=loss, tolerance=1e-6)
    assert (fine.gap >= -1e-6 * fine.objective).all()
    assert (rough.gap <= 0.1 * rough.objective).all()
    assert (rough.objective - rough.gap <= fine.objective).all()
    assert (fine.objective <= rough.objective * (1 + 1e-6)).all()
    assert fine.num_iterations > rough.num_iterations


def test_ignored_examples_do_not_count():
    features, targets = examples()
    targets[::3, 0] = 0
    found = fit_linear_svms(features, targets, tolerance=1e-6)
    kept = targets[:, 0] != 0
    alone = fit_linear_svms(features[kept], targets[kept, :1], tolerance=1e-6)
    assert_close(found.weight[0], alone.weight[0], rtol=1e-3, atol=1e-4)
    other = fit_linear_svms(features, targets[:, 1:], tolerance=1e-6)
    assert_close(found.weight[1:], other.weight, rtol=1e-3, atol=1e-4)


def test_half_precision_features_give_the_same():
    features, targets = examples()
    half = features.half()
    found = fit_linear_svms(half, targets, tolerance=1e-6)
    expected = fit_linear_svms(half.float(), targets, tolerance=1e-6)
    assert_close(found.weight, expected.weight, rtol=1e-4, atol=1e-5)


def test_blocks_of_rows_do_not_show(monkeypatch):
    features, targets = examples()
    expected = fit_linear_svms(features, targets, tolerance=1e-6)
    monkeypatch.setattr("detect.ops.svm.BLOCK_ROWS", 7)
    found = fit_linear_svms(features, targets, tolerance=1e-6)
    assert_close(found.weight, expected.weight, rtol=1e-3, atol=1e-4)


def test_a_good_beginning_saves_steps():
    features, targets = examples(2, 2000)
    cold = fit_linear_svms(features, targets)
    warm = fit_linear_svms(features, targets, initial=cold)
    assert warm.num_iterations < cold.num_iterations
    assert_close(warm.weight, cold.weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("loss", ["squared_hinge", "hinge"])
@pytest.mark.parametrize("target", [1, -1])
def test_examples_of_one_kind(loss, target):
    features, _ = examples()
    targets = torch.full((NUM_EXAMPLES, 1), target)
    found = fit_linear_svms(features, targets, loss=loss)
    outputs = features @ found.weight[0] + found.bias[0]
    assert (outputs * target > 0).all()
    # with the hinge all margins are 1 but for rounding, where its derivative jumps
    assert (found.gap <= 3e-3 * found.objective).all()


def test_no_examples():
    found = fit_linear_svms(torch.zeros(0, DIM), torch.zeros(0, 2, dtype=torch.int64))
    assert found.weight.shape == (2, DIM)
    assert not found.weight.any()
    assert not found.bias.any()


def test_too_few_steps_give_what_was_reached():
    features, targets = examples()
    found = fit_linear_svms(features, targets, max_iterations=1)
    assert found.num_iterations == 1
    assert np.isfinite(found.objective.numpy()).all()
    assert (found.gap > 1e-4 * found.objective).any()
