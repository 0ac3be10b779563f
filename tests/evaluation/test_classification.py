import inspect
import io
import json
import math

import numpy as np
import pytest
import torch
from rich.console import Console
from torch.utils._python_dispatch import TorchDispatchMode

from detect.errors import DetectError
from detect.evaluation.tasks.classification import ClassificationEvaluator, ClassificationReport


def report_of(logits, labels, class_names=None):
    logits = torch.as_tensor(logits, dtype=torch.float32)
    names = class_names or [f"class {number}" for number in range(logits.shape[1])]
    evaluator = ClassificationEvaluator(names)
    evaluator.update(logits, torch.as_tensor(labels, dtype=torch.int64))
    return evaluator.compute()


def random_case(num_images=500, num_classes=11, seed=0):
    """Logits without ties, better than chance; the last class has no image."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, num_classes - 1, num_images)
    logits = generator.normal(size=(num_images, num_classes)).astype(np.float32)
    logits[np.arange(num_images), labels] += 1
    return logits, labels


# ---- by hand ----------------------------------------------------------------------------------


def test_by_hand():
    logits = [
        [3, 1, 2],  # 0: right
        [0, 1, 2],  # 0: taken for 2
        [5, 9, 1],  # 1: right
        [1, 0, -1],  # 0: right
    ]
    report = report_of(logits, [0, 0, 1, 0])
    assert report.num_images == 4
    assert report.top1 == 3 / 4
    assert report.top5 == 1
    assert report.confusion_matrix == [[2, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert report.class_counts == {"class 0": 3, "class 1": 1, "class 2": 0}
    assert report.class_accuracies["class 0"] == 2 / 3
    assert report.class_accuracies["class 1"] == 1
    assert math.isnan(report.class_accuracies["class 2"])
    assert report.mean_class_accuracy == (2 / 3 + 1) / 2  # class 2 stays out


def test_top5_takes_the_fifth_and_not_the_sixth():
    logits = [[9, 8, 7, 6, 5, 4, 3]] * 7
    report = report_of(logits, range(7))
    assert report.top1 == 1 / 7
    assert report.top5 == 5 / 7


@pytest.mark.parametrize("num_classes", [1, 2, 4, 5])
def test_top5_of_few_classes_is_one(num_classes):
    logits = torch.randn(20, num_classes, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(20) % num_classes
    assert report_of(logits, labels).top5 == 1


def test_ties_go_to_the_lower_class():
    zeros = [[0.0] * 7] * 7
    report = report_of(zeros, range(7))
    assert [row[0] for row in report.confusion_matrix] == [1] * 7
    assert report.top1 == 1 / 7
    assert report.top5 == 5 / 7  # classes 0 to 4
    # a tie behind the best: 4 and 5 share the fifth place, and 4 has it
    logits = [[9, 8, 7, 6, 1, 1]] * 2
    assert report_of(logits, [4, 5]).top5 == 1 / 2


def test_infinite_logits_are_numbers():
    logits = [[-math.inf, 0, -math.inf], [math.inf, 0, 1]]
    report = report_of(logits, [1, 0])
    assert report.top1 == 1
    assert report_of([[-math.inf] * 6], [5]).top5 == 0


def test_without_images():
    report = ClassificationEvaluator(["cat", "dog"]).compute()
    assert report.num_images == 0
    assert report.confusion_matrix == [[0, 0], [0, 0]]
    for value in (report.top1, report.top5, report.mean_class_accuracy):
        assert math.isnan(value)
    content = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert content["top1"] is content["top5"] is content["mean_class_accuracy"] is None
    assert "0 images" in " ".join(printed(report).split())


# ---- against scikit-learn ---------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_equals_scikit_learn(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    logits, labels = random_case(seed=seed)
    report = report_of(logits, labels)
    predicted = logits.argmax(axis=1)
    numbers = list(range(11))
    assert report.top1 == metrics.accuracy_score(labels, predicted)
    assert report.top5 == metrics.top_k_accuracy_score(labels, logits, k=5, labels=numbers)
    expected = metrics.confusion_matrix(labels, predicted, labels=numbers)
    assert report.confusion_matrix == expected.tolist()
    assert 0.2 < report.top1 < report.top5 < 0.95
    balanced = metrics.recall_score(
        labels, predicted, labels=numbers[:10], average="macro", zero_division=0
    )
    assert report.mean_class_accuracy == pytest.approx(balanced, rel=1e-12)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batches_do_not_matter(batch_size):
    logits, labels = (torch.from_numpy(array) for array in random_case(100))
    evaluator = ClassificationEvaluator([f"class {number}" for number in range(11)])
    for rows in torch.arange(100).split(batch_size):
        evaluator.update(logits[rows], labels[rows])
    assert evaluator.compute().as_dict() == report_of(logits, labels).as_dict()
    assert evaluator.compute().num_images == 100  # computing leaves the images


# ---- updates ----------------------------------------------------------------------------------


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_an_update_computes_nothing():
    evaluator = ClassificationEvaluator(["cat", "dog"])
    logits = torch.randn(4, 2, requires_grad=True)
    labels = torch.tensor([0, 1, 1, 0])
    with Operations() as operations:
        evaluator.update(logits, labels)
    assert operations.names == ["aten.detach.default"]
    with Operations() as operations:
        evaluator.compute()
    assert len(operations.names) > 1  # so that the list above means something


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_number_types(dtype):
    evaluator = ClassificationEvaluator(["cat", "dog"])
    evaluator.update(torch.tensor([[0.0, 1.0]], dtype=dtype), torch.tensor([1], dtype=torch.int32))
    assert evaluator.compute().top1 == 1


def test_labels_of_few_bits_with_many_classes():
    evaluator = ClassificationEvaluator([f"class {number}" for number in range(300)])
    logits = torch.zeros(1, 300)
    logits[0, 100] = 1
    evaluator.update(logits, torch.tensor([100], dtype=torch.int8))
    assert evaluator.compute().top1 == 1


def test_shapes_that_do_not_match():
    evaluator = ClassificationEvaluator(["cat", "dog"])
    with pytest.raises(ValueError, match="each of the 2 classes, found 3"):
        evaluator.update(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))
    # the type checker of the tests sees this first; without it the method does
    plain_update = inspect.unwrap(ClassificationEvaluator.update)
    with pytest.raises(ValueError, match="each of 4 rows of logits, found 3"):
        plain_update(evaluator, torch.zeros(4, 2), torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize("names", [[], ["cat", "cat"]])
def test_class_names_that_make_no_sense(names):
    with pytest.raises(ValueError, match="class_names"):
        ClassificationEvaluator(names)


@pytest.mark.parametrize("place", [0, 1])
def test_nan_names_the_row(place):
    evaluator = ClassificationEvaluator(["cat", "dog"])
    logits = torch.zeros(3, 2)
    evaluator.update(logits, torch.zeros(3, dtype=torch.int64))
    broken = logits.clone()
    broken[1, place] = math.nan
    evaluator.update(broken, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(DetectError, match="found nan in row 4 of 6"):
        evaluator.compute()


@pytest.mark.parametrize("label", [-1, 2])
def test_labels_without_a_class(label):
    with pytest.raises(ValueError, match=f"expected 0 to 1.*found {label} in row 1"):
        report_of(torch.zeros(3, 2), [0, label, 1])


# ---- the report -------------------------------------------------------------------------------


def printed(report, width=80):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(report.table())
    return console.export_text()


def test_the_keys_of_the_json_are_stable():
    logits, labels = random_case()
    report = report_of(logits, labels)
    content = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert list(content) == [
        "protocol",
        "top1",
        "top5",
        "mean_class_accuracy",
        "num_images",
        "classes",
        "confusion_matrix",
    ]
    assert list(content["protocol"]) == ["name", "metrics", "ties"]
    assert set(content["protocol"]["metrics"]) == {"top1", "top5", "mean_class_accuracy"}
    assert content["top1"] == report.top1
    assert content["top5"] == report.top5
    assert content["mean_class_accuracy"] == report.mean_class_accuracy
    assert content["num_images"] == 500
    assert content["confusion_matrix"] == report.confusion_matrix
    assert len(content["classes"]) == 11
    assert content["classes"]["class 10"] == {"accuracy": None, "num_images": 0}
    accuracies = report.class_accuracies
    assert content["classes"]["class 3"]["accuracy"] == accuracies["class 3"]


def test_the_table_says_all_numbers():
    report = ClassificationReport(("cat", "dog", "cow"), [[7, 1, 2], [0, 4, 0], [0, 0, 0]], 14)
    lines = printed(report).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert rows["cat"] == ["0.7000", "10", "cow", "(2)"]
    assert rows["dog"] == ["1.0000", "4"]
    assert rows["cow"] == ["—", "0"]
    assert rows["mean"] == ["/", "total", "0.8500", "14"]
    words = " ".join(printed(report).split())
    assert "Top-1 accuracy 0.7857, top-5 1.0000 (of only 3 classes), of 14 images" in words
    assert "classes of equal logit rank by their number" in words


def test_the_table_does_not_excuse_a_real_top5():
    assert "there are only" not in printed(report_of(*random_case()))


def test_the_table_fits_a_narrow_terminal_and_takes_names_literally():
    names = ("[bold]dog[/bold]", "a name that is rather long for a class", "[/]")
    report = ClassificationReport(names, [[5, 0, 2], [0, 1, 0], [1, 0, 4]], 13)
    text = printed(report)
    assert max(map(len, text.splitlines())) <= 80
    assert "[bold]dog" in text
    assert "[/] (2)" in text
