import pytest
import torch
from torch.testing import assert_close

from detect.detectors.rcnn import mining
from detect.detectors.rcnn.mining import FEATURE_LENGTH, mine_svms
from detect.detectors.rcnn.regions import RegionTable
from detect.ops.svm import fit_linear_svms
from tests.detectors.rcnn.training_images import Silent

NUM_CLASSES, DIM = 3, 8


class InMemory:
    """Features of a table that are there already."""

    def __init__(self, table, values):
        self.table, self.values = table, values

    def rows(self, wanted, watch):
        for image in range(self.table.num_images):
            watch(image, self.table.num_images)
            rows = wanted[self.table.rows_of(image)].nonzero().flatten()
            rows = rows + self.table.rows_of(image).start
            if len(rows):
                yield rows, self.values[rows]

    def regressed(self, watch):
        raise NotImplementedError


def problem(num_images=30, num_regions=40, seed=0, distance=1.5):
    """Images with one object each, and regions most of which show nothing."""
    generator = torch.Generator().manual_seed(seed)
    count = num_images * num_regions
    labels = torch.full((count,), -1, dtype=torch.int16)
    objects = torch.arange(num_images) * num_regions
    labels[objects] = (torch.arange(num_images) % NUM_CLASSES).to(torch.int16)
    directions = torch.randn(NUM_CLASSES, DIM, generator=generator)
    values = torch.randn(count, DIM, generator=generator)
    values[objects] += distance * directions[labels[objects].long()]
    negatives = torch.rand(count, NUM_CLASSES, generator=generator) < 0.9
    negatives[objects] = True
    negatives[objects, labels[objects].long()] = False
    table = RegionTable(
        torch.arange(num_images + 1) * num_regions,
        labels,
        negatives,
        torch.zeros(count, dtype=torch.bool),
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, 4),
    )
    return table, values.half()


def solve_all_at_once(table, values, cost):
    """The problem that mining approaches: every negative of every class."""
    targets = -table.negatives.long()
    rows = (table.labels >= 0).nonzero().flatten()
    targets[rows, table.labels[rows].long()] = 1
    taken = table.labels < 0
    taken[rows] = True
    scale = FEATURE_LENGTH / values.float().norm(dim=1).mean()
    solved = fit_linear_svms(
        values.float() * scale,
        targets,
        cost=cost,
        loss="hinge",
        positive_weight=2.0,
        bias_scale=10.0,
    )
    return solved, scale


@pytest.mark.parametrize("retrain_after", [50, 200, 100_000])
def test_mined_svms_are_those_of_all_negatives(monkeypatch, retrain_after):
    monkeypatch.setattr(mining, "RETRAIN_AFTER", retrain_after)
    table, values = problem()
    watch = Silent()
    mined = mine_svms(table, InMemory(table, values), torch.device("cpu"), 0.01, 4, watch)
    expected, scale = solve_all_at_once(table, values, 0.01)
    scores = values.float() @ mined.svms.weight.T + mined.svms.bias
    wanted = (values.float() * scale) @ expected.weight.T + expected.bias
    # what is easy for a while and given up may come back: a little is left of it
    assert (scores - wanted).abs().mean() < 0.02 * wanted.abs().mean()
    assert ((scores > 0) == (wanted > 0)).double().mean() > 0.995


def test_easy_negatives_are_not_kept():
    table, values = problem(distance=4)
    mined = mine_svms(table, InMemory(table, values), torch.device("cpu"), 0.1, 1, Silent())
    assert 0 < mined.num_kept < 0.6 * (table.labels < 0).sum()


def test_the_svms_are_trained_whenever_enough_has_come(monkeypatch):
    table, values = problem()
    counts = []
    for retrain_after in (100_000, 300, 60):
        monkeypatch.setattr(mining, "RETRAIN_AFTER", retrain_after)
        mined = mine_svms(table, InMemory(table, values), torch.device("cpu"), 0.01, 1, Silent())
        counts.append(mined.num_fits)
    assert counts[0] == 1
    assert counts == sorted(counts)
    assert counts[2] > counts[1] > 1


def test_features_of_another_scale_give_the_same_scores():
    table, values = problem()
    one = mine_svms(table, InMemory(table, values), torch.device("cpu"), 0.01, 1, Silent())
    large = mine_svms(table, InMemory(table, values * 4), torch.device("cpu"), 0.01, 1, Silent())
    assert_close(large.svms.weight * 4, one.svms.weight, atol=1e-3, rtol=1e-2)


def test_without_objects_nothing_is_found():
    table, values = problem()
    table = table._replace(labels=torch.full_like(table.labels, -1))
    mined = mine_svms(table, InMemory(table, values), torch.device("cpu"), 0.01, 1, Silent())
    assert (values.float() @ mined.svms.weight.T + mined.svms.bias < 0).all()


def test_without_regions_there_is_nothing():
    table = RegionTable(
        torch.zeros(1, dtype=torch.int64),
        torch.zeros(0, dtype=torch.int16),
        torch.zeros(0, NUM_CLASSES, dtype=torch.bool),
        torch.zeros(0, dtype=torch.bool),
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, 4),
    )
    features = InMemory(table, torch.zeros(0, DIM, dtype=torch.float16))
    mined = mine_svms(table, features, torch.device("cpu"), 0.01, 1, Silent())
    assert mined.svms.weight.shape[0] == NUM_CLASSES
