"""Two processes judge a half of the images each, over gloo on the CPU."""

import json

from detect.evaluation import COCOEvaluator, VOCEvaluator
from tests.evaluation.voc_cases import random_case
from tests.training.together import run_together

EVALUATORS = (VOCEvaluator, COCOEvaluator)


def judge_half(processes):
    case = random_case(0)
    half = slice(7) if processes.rank == 0 else slice(7, None)
    reports = []
    for kind in EVALUATORS:
        evaluator = kind(case.class_names)
        evaluator.update(case.detections[half], case.truths[half])
        evaluator.gather()
        reports.append(json.dumps(evaluator.compute().as_dict()))
    return reports


def test_every_process_has_the_numbers_of_one_that_saw_all():
    case = random_case(0)
    expected = []
    for kind in EVALUATORS:
        evaluator = kind(case.class_names)
        evaluator.update(case.detections, case.truths)
        expected.append(json.dumps(evaluator.compute().as_dict()))
    assert run_together(judge_half) == [expected, expected]
