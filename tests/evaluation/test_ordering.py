import numpy as np
import pytest
import torch

from detect.evaluation import ordering
from detect.evaluation.ordering import order_by_group_and_score, stable_order

SCORES = [0.5, -0.5, 0.0, -0.0, 1.0, -2.5, 1e-40, -1e-40, 3e38, -3e38, 0.5000001]


@pytest.mark.parametrize("key_bits", [63, 40, 3])  # of both numbers, of the score alone, of none
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("count", [0, 1, 2, 257])
def test_order_is_that_of_a_stable_sort(monkeypatch, count, dtype, key_bits):
    monkeypatch.setattr(ordering, "KEY_BITS", key_bits)
    draw = np.random.default_rng(count)
    scores = torch.tensor(draw.choice(SCORES[:8], count), dtype=dtype)
    groups = torch.tensor(draw.integers(0, 5, count) * 1000, dtype=torch.int64)
    rows = sorted(range(count), key=lambda row: (int(groups[row]), -float(scores[row])))
    assert order_by_group_and_score(groups, scores).tolist() == rows
    assert stable_order(groups).tolist() == sorted(range(count), key=groups.tolist().__getitem__)


def test_scores_of_every_size_fall():
    scores = torch.tensor(SCORES)
    order = order_by_group_and_score(torch.zeros(len(SCORES), dtype=torch.int64), scores)
    expected = sorted(range(len(SCORES)), key=lambda row: -SCORES[row])
    assert order.tolist() == expected
