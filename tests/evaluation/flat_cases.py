"""Random images as the analyses take them, and as plain records for slow oracles."""

from detect.evaluation import VOCEvaluator
from tests.evaluation.voc_cases import random_case


def flat(case):
    """`(detections, objects)` of a case, as the evaluator gives them."""
    evaluator = VOCEvaluator(case.class_names)
    evaluator.update(case.detections, case.truths)
    return evaluator.flat()


def flat_case(seed, num_images=12, num_classes=4):
    """The class names, the flat detections and the flat objects of a random case."""
    case = random_case(seed, num_images, num_classes)
    return (case.class_names, *flat(case))


def records(columns):
    """A dict for each row of flat detections or objects, in their order."""
    names = {"images": "image", "boxes": "box", "scores": "score", "labels": "label"}
    lists = {names.get(name, name): column.tolist() for name, column in columns._asdict().items()}
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
