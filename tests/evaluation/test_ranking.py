import numpy as np
import pytest
import torch
from torch.testing import assert_close

from detect.evaluation.ranking import (
    VOC_RECALLS,
    RankedLists,
    area_under_curve,
    count_within,
    envelope,
    num_true,
    precision_at_recalls,
)
from tests.evaluation.voc_cases import slow_average_precisions


def ranked_lists(verdicts, num_objects):
    """Lists of flags, every detection an entry."""
    flags = torch.tensor([flag for one in verdicts for flag in one], dtype=torch.bool)
    lists = torch.repeat_interleave(
        torch.arange(len(verdicts)), torch.tensor([len(one) for one in verdicts])
    )
    hits = count_within(flags, lists, len(verdicts))
    ranks = count_within(torch.ones_like(flags), lists, len(verdicts))
    return RankedLists(lists, flags, hits.double() / ranks, torch.tensor(num_objects))


def of_true_positives(ranked):
    """The same lists without the other entries."""
    rows = ranked.is_true
    return RankedLists(
        ranked.lists[rows], ranked.is_true[rows], ranked.precision[rows], ranked.num_objects
    )


@pytest.mark.parametrize("seed", range(10))
def test_lists_at_once_are_each_list_alone(seed):
    draw = np.random.default_rng(seed)
    verdicts = [(draw.random(draw.integers(0, 60)) < draw.random()).tolist() for _ in range(12)]
    num_objects = [sum(one) + int(draw.integers(0, 9)) for one in verdicts]
    whole = ranked_lists(verdicts, num_objects)
    for ranked in (whole, of_true_positives(whole)):
        best = envelope(ranked)
        areas = area_under_curve(ranked, best)
        at_recalls = precision_at_recalls(ranked, best, torch.from_numpy(VOC_RECALLS))
        assert num_true(ranked).tolist() == [sum(one) for one in verdicts]
        for row, (one, total) in enumerate(zip(verdicts, num_objects, strict=True)):
            if total == 0:
                assert areas[row].isnan()
                continue
            eleven, area = slow_average_precisions(one, [not flag for flag in one], total)
            assert areas[row] == pytest.approx(area)
            assert at_recalls[:, row].mean() == pytest.approx(eleven, abs=1e-12)


@pytest.mark.parametrize("num_recalls", [11, 101])
def test_a_recall_is_reached_where_the_quotient_says_so(num_recalls):
    """0.07 · 100 is more than 7, but 7 / 100 is not less than 0.07."""
    grids = [np.arange(num_recalls) * (1 / (num_recalls - 1)), np.linspace(0, 1, num_recalls)]
    for recalls in grids:
        for total in range(1, 130):
            # the precision of the k-th hit is unlike all others, and falls
            precision = torch.arange(total, 0, -1).double() / total
            lists = torch.zeros(total, dtype=torch.int64)
            ranked = RankedLists(lists, lists == 0, precision, torch.tensor([total]))
            found = precision_at_recalls(ranked, envelope(ranked), torch.from_numpy(recalls))
            reached = np.arange(1, total + 1) / total
            expected = [
                next((float(p) for p, r in zip(precision, reached, strict=True) if r >= recall), 0)
                for recall in recalls
            ]
            assert_close(found[:, 0], torch.tensor(expected, dtype=torch.float64))


def test_without_entries():
    nothing = torch.zeros(0, dtype=torch.int64)
    ranked = RankedLists(nothing, nothing.bool(), nothing.double(), torch.tensor([3, 0]))
    best = envelope(ranked)
    assert area_under_curve(ranked, best).tolist()[0] == 0
    recalls = torch.from_numpy(VOC_RECALLS)
    assert precision_at_recalls(ranked, best, recalls).shape == (11, 2)
