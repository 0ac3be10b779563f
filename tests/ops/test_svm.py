import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC
from torch.testing import assert_close

from detect.ops import svm_dual
from detect.ops.svm import AUTO_DUAL_PASSES, fit_linear_svms
from detect.ops.svm_kernels import compiled_sweep, sweep, sweep_plainly

NUM_EXAMPLES, DIM, NUM_CLASSES = 400, 12, 3
# Where the weights themselves agree to four digits: the last Newton step overshoots what is asked
# for, the passes of the other solver don't.
FINE = {"newton": {"tolerance": 1e-6}, "dual": {"tolerance": 1e-8, "cost": 0.1}}

both_solvers = pytest.mark.parametrize("solver", ["newton", "dual"])
both_losses = pytest.mark.parametrize("loss", ["squared_hinge", "hinge"])


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


@functools.cache  # for both solvers
def library_fit(row, cost, loss, positive_weight, bias_scale):
    """Weight and bias of one class of `examples()` by LIBLINEAR."""
    features, targets = examples()
    machine = LinearSVC(
        C=cost,
        loss=loss,
        dual=loss == "hinge",
        intercept_scaling=bias_scale,
        class_weight={1: positive_weight, -1: 1.0},
        tol=1e-6,
        max_iter=1_000_000,
        random_state=0,
    ).fit(features.double().numpy(), targets[:, row].numpy())
    return torch.from_numpy(machine.coef_[0]), float(machine.intercept_[0])


@both_losses
@pytest.mark.parametrize("cost", [0.001, 0.1, 2.0])
@pytest.mark.parametrize(("positive_weight", "bias_scale"), [(1.0, 1.0), (2.0, 10.0)])
@both_solvers
def test_the_solution_is_that_of_liblinear(loss, cost, positive_weight, bias_scale, solver):
    features, targets = examples()
    found = fit_linear_svms(
        features,
        targets,
        cost=cost,
        loss=loss,
        positive_weight=positive_weight,
        bias_scale=bias_scale,
        tolerance=1e-5,  # LIBLINEAR's, above, is finer than its default too
        solver=solver,
    )
    options = (cost, loss, positive_weight, bias_scale)
    for row in range(NUM_CLASSES):
        own = targets[:, row]
        weight, bias = library_fit(row, *options)
        expected = objective_of(weight, bias, features, own, *options)
        value = objective_of(found.weight[row], found.bias[row], features, own, *options)
        assert float(found.objective[row]) == pytest.approx(value, rel=1e-5)
        assert value == pytest.approx(expected, rel=1e-3)  # neither is exact
        outputs = features @ found.weight[row] + found.bias[row]
        theirs = features.double() @ weight + bias
        sure = theirs.abs() > 0.02 * theirs.std()
        assert ((outputs > 0) == (theirs > 0))[sure].all()


@both_losses
@both_solvers
def test_the_gap_bounds_what_is_left(loss, solver):
    features, targets = examples(1)
    options = {"loss": loss, "solver": solver}
    rough = fit_linear_svms(features, targets, tolerance=0.1, **options)
    fine = fit_linear_svms(features, targets, tolerance=1e-6, **options)
    assert (fine.gap >= -1e-6 * fine.objective).all()
    assert (rough.gap <= 0.1 * rough.objective).all()
    assert (rough.objective - rough.gap <= fine.objective).all()
    assert (fine.objective <= rough.objective * (1 + 1e-6)).all()
    assert fine.num_iterations > rough.num_iterations


@both_losses
def test_both_solvers_find_the_same(loss):
    features, targets = examples(3)
    targets[::5, 1] = 0
    newton, dual = (
        fit_linear_svms(features, targets, cost=0.1, loss=loss, tolerance=1e-5, solver=solver)
        for solver in ("newton", "dual")
    )
    assert_close(dual.objective, newton.objective, rtol=2e-5, atol=0)  # neither is exact
    assert_close(dual.weight, newton.weight, rtol=0.01, atol=0.003)


@both_solvers
def test_ignored_examples_do_not_count(solver):
    features, targets = examples()
    targets[::3, 0] = 0
    options = {"solver": solver, **FINE[solver]}
    found = fit_linear_svms(features, targets, **options)
    kept = targets[:, 0] != 0
    alone = fit_linear_svms(features[kept], targets[kept, :1], **options)
    assert_close(found.weight[0], alone.weight[0], rtol=1e-3, atol=1e-4)
    other = fit_linear_svms(features, targets[:, 1:], **options)
    assert_close(found.weight[1:], other.weight, rtol=1e-3, atol=1e-4)


@both_losses
@both_solvers
def test_a_class_without_examples_is_zero(loss, solver):
    features, targets = examples()
    targets[:, 1] = 0
    found = fit_linear_svms(features, targets, loss=loss, cost=0.1, solver=solver)
    assert not found.weight[1].any()
    assert found.bias[1] == found.objective[1] == found.gap[1] == 0
    assert found.weight[[0, 2]].any(dim=1).all()


@both_solvers
def test_half_precision_features_give_the_same(solver):
    features, targets = examples()
    half = features.half()
    found = fit_linear_svms(half, targets, tolerance=1e-6, solver=solver)
    expected = fit_linear_svms(half.float(), targets, tolerance=1e-6, solver=solver)
    assert_close(found.weight, expected.weight, rtol=1e-4, atol=1e-5)


@both_solvers
def test_blocks_of_rows_do_not_show(monkeypatch, solver):
    features, targets = examples()
    options = {"solver": solver, **FINE[solver]}
    expected = fit_linear_svms(features, targets, **options)
    monkeypatch.setattr("detect.ops.svm_problem.BLOCK_ROWS", 7)
    monkeypatch.setattr(svm_dual, "BLOCK_SIZE", 33)
    found = fit_linear_svms(features, targets, **options)
    assert_close(found.weight, expected.weight, rtol=1e-3, atol=1e-4)


@both_losses
@both_solvers
def test_a_good_beginning_saves_steps(loss, solver):
    features, targets = examples(2, 2000)
    options = {"cost": 0.01, "loss": loss, "solver": solver}
    cold = fit_linear_svms(features, targets, **options)
    warm = fit_linear_svms(features, targets, initial=cold, **options)
    assert warm.num_iterations < cold.num_iterations
    assert (warm.gap <= 1e-4 * warm.objective).all()
    assert_close(warm.weight, cold.weight, rtol=0.01, atol=0.003)


@both_losses
def test_duals_of_fewer_examples_save_passes(loss):
    features, targets = examples(2, 2000)
    options = {"cost": 0.01, "loss": loss, "tolerance": 1e-6, "solver": "dual"}
    cold = fit_linear_svms(features, targets, **options)
    fewer = fit_linear_svms(features[:1980], targets[:1980], **options)
    duals = torch.cat((fewer.duals, torch.zeros(20, NUM_CLASSES)))
    warm = fit_linear_svms(features, targets, initial=replace(fewer, duals=duals), **options)
    assert warm.num_iterations < cold.num_iterations
    assert_close(warm.objective, cold.objective, rtol=2e-6, atol=0)
    # without duals for all, the weights alone are where it begins
    from_weights = fit_linear_svms(features, targets, initial=fewer, max_iterations=0, **options)
    assert_close(from_weights.weight, fewer.weight)
    assert (from_weights.gap > 0.9 * from_weights.objective).all()


@both_losses
def test_duals_beyond_their_bounds_are_clipped(loss):
    features, targets = examples()
    targets[::7] = 0
    options = {"cost": 0.01, "loss": loss, "tolerance": 1e-5, "solver": "dual"}
    cold = fit_linear_svms(features, targets, **options)
    wild = replace(cold, duals=torch.randn(NUM_EXAMPLES, NUM_CLASSES))
    found = fit_linear_svms(features, targets, initial=wild, **options)
    assert (found.duals >= 0).all()
    assert not found.duals[::7].any()
    assert loss == "squared_hinge" or (found.duals <= 0.01).all()
    assert_close(found.objective, cold.objective, rtol=2e-5, atol=0)


@both_losses
@pytest.mark.parametrize("target", [1, -1])
@both_solvers
def test_examples_of_one_kind(loss, target, solver):
    features, _ = examples()
    targets = torch.full((NUM_EXAMPLES, 1), target)
    found = fit_linear_svms(features, targets, loss=loss, solver=solver)
    outputs = features @ found.weight[0] + found.bias[0]
    assert (outputs * target > 0).all()
    # with the hinge all margins are 1 but for rounding, where its derivative jumps
    assert (found.gap <= 3e-3 * found.objective).all()


@both_solvers
def test_no_examples(solver):
    no_targets = torch.zeros(0, 2, dtype=torch.int64)
    found = fit_linear_svms(torch.zeros(0, DIM), no_targets, solver=solver)
    assert found.weight.shape == (2, DIM)
    assert not found.weight.any()
    assert not found.bias.any()


@both_solvers
def test_too_few_steps_give_what_was_reached(solver):
    features, targets = examples()
    found = fit_linear_svms(features, targets, max_iterations=1, solver=solver)
    assert found.num_iterations == 1
    assert np.isfinite(found.objective.numpy()).all()
    assert (found.gap > 1e-4 * found.objective).any()


def test_on_the_cpu_the_solver_is_the_dual_one():
    features, targets = examples()
    found = fit_linear_svms(features, targets, cost=0.01)
    expected = fit_linear_svms(features, targets, cost=0.01, solver="dual")
    assert found.num_iterations == expected.num_iterations < AUTO_DUAL_PASSES
    assert_close(found.weight, expected.weight, rtol=0, atol=0)
    assert_close(found.duals, expected.duals, rtol=0, atol=0)


@both_losses
def test_newton_ends_what_the_dual_solver_does_not(loss, monkeypatch):
    passes = 30
    monkeypatch.setattr("detect.ops.svm.AUTO_DUAL_PASSES", passes)
    features, targets = examples()
    targets[:, 1] = 0  # done at once
    options = {"cost": 2.0, "loss": loss, "positive_weight": 2.0, "bias_scale": 10.0}
    dual = fit_linear_svms(features, targets, solver="dual", max_iterations=passes, **options)
    assert (dual.gap > 1e-4 * dual.objective).any()
    assert_close(
        fit_linear_svms(features, targets, max_iterations=passes, **options).weight, dual.weight
    )
    found = fit_linear_svms(features, targets, **options)
    assert found.num_iterations > passes
    assert (found.gap <= 1e-4 * found.objective).all()
    assert (found.objective <= dual.objective).all()
    for row in (0, 2):
        value = objective_of(
            found.weight[row], found.bias[row], features, targets[:, row], **options
        )
        assert float(found.objective[row]) == pytest.approx(value, rel=1e-5)


def test_the_dual_solver_refuses_other_devices():
    features, targets = torch.zeros(4, DIM, device="meta"), torch.zeros(4, 1, dtype=torch.int64)
    with pytest.raises(ValueError, match="expected features on the CPU, not on meta"):
        fit_linear_svms(features, targets, solver="dual")


def test_the_order_of_the_examples_is_always_the_same():
    features, targets = examples()
    torch.manual_seed(1)
    one = fit_linear_svms(features, targets, solver="dual")
    torch.manual_seed(2)
    other = fit_linear_svms(features, targets, solver="dual")
    assert one.num_iterations == other.num_iterations
    assert_close(one.weight, other.weight, rtol=0, atol=0)


@both_losses
def test_settled_examples_are_left_out(loss, monkeypatch):
    features, targets = examples()
    features[200:, 0], targets[200:] = 100, -1  # far from all others, and on the right side soon
    seen = []

    kernel = compiled_sweep()

    def spy(outputs, gram, rows, *rest):
        seen.append(rows)
        return kernel(outputs, gram, rows, *rest)

    monkeypatch.setattr(svm_dual, "compiled_sweep", lambda: spy)
    found = fit_linear_svms(features, targets, cost=0.01, loss=loss, solver="dual")
    assert (found.gap <= 1e-4 * found.objective).all()
    assert set(np.concatenate(seen[:7])) == set(range(NUM_EXAMPLES))
    last = np.concatenate(seen[-3:])
    assert len(set(last[last >= 200])) < 20


def block_of_examples(is_squared):
    """Random arguments for a sweep over 9 of 20 examples, some of which classes ignore."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(9, 5)).astype(np.float32)
    signs = generator.integers(-1, 2, (20, NUM_CLASSES)).astype(np.float32)
    costs = np.where(signs != 0, np.where(signs > 0, 0.4, 0.2), 0).astype(np.float32)
    duals = (generator.random(costs.shape) * costs).astype(np.float32)
    duals[::2] = 0
    outputs = generator.normal(size=(NUM_CLASSES, 9)).astype(np.float32)
    rows = generator.permutation(20)[:9]
    return outputs, features @ features.T + 1, rows, duals, signs, costs, is_squared, 20


@pytest.mark.parametrize("is_squared", [False, True])
@pytest.mark.parametrize("kernel", [sweep, compiled_sweep()])
def test_the_compiled_loop_does_the_same(is_squared, kernel):
    arguments, others = block_of_examples(is_squared), block_of_examples(is_squared)
    changes, expected = kernel(*arguments), sweep_plainly(*others)
    assert np.abs(expected).max() > 0.1
    assert_close(torch.from_numpy(changes), torch.from_numpy(expected))
    assert_close(torch.from_numpy(arguments[3]), torch.from_numpy(others[3]))


@both_losses
def test_without_numba_the_solution_is_the_same(loss, monkeypatch):
    features, targets = examples()
    options = {"cost": 0.01, "loss": loss, "solver": "dual"}
    found = fit_linear_svms(features, targets, **options)
    monkeypatch.setattr(svm_dual, "compiled_sweep", lambda: sweep_plainly)
    plain = fit_linear_svms(features, targets, **options)
    assert_close(plain.objective, found.objective, rtol=2e-4, atol=0)  # neither is exact
    assert abs(plain.num_iterations - found.num_iterations) <= svm_dual.ROUND_PASSES


def test_numba_is_used_where_it_is():
    pytest.importorskip("numba")
    assert compiled_sweep() is not sweep_plainly
