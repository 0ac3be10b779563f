"""`detect evaluate` over files of detections, in this process."""

import csv
import json
import shutil

import pytest
import torch

from detect.cli.judgment import parse_thresholds
from detect.data import (
    SHAPE_CLASSES,
    read_annotated,
    read_coco_truths,
    read_dataset,
)
from detect.errors import DetectError
from detect.evaluation import (
    COCOEvaluator,
    DetectionSet,
    compare_detections,
    fuse_detections,
    read_coco_results,
    read_detections_json,
    write_detections_csv,
    write_detections_json,
    write_voc_detections,
)
from detect.experiment.model import load
from detect.structures import Detections
from detect.training import load_checkpoint, save_checkpoint
from tests.cli.conftest import CONFIG, run
from tests.evaluation.coco_cases import random_case


def evaluate(*arguments, status=0):
    return " ".join(run("evaluate", *arguments, status=status).split())


def result_of(folder, *arguments):
    path = folder / "result.json"
    printed = evaluate(*arguments, "--json", path)
    assert str(path) in printed
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def shapes(small_shapes):
    return small_shapes


def noisy_detections(annotated, seed):
    """The objects, each moved a little, and a box of another class beside them."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for image in annotated.images:
        boxes = torch.tensor([item.box for item in image.objects]).reshape(-1, 4).float()
        labels = torch.tensor(
            [annotated.class_names.index(item.name) for item in image.objects], dtype=torch.int64
        )
        moved = boxes + torch.randn(boxes.shape[0], 1, generator=generator) * 3
        labels = torch.cat((labels, (labels + 1) % len(annotated.class_names)))
        scores = torch.rand(len(labels), generator=generator)
        found.append(Detections.sorted(torch.cat((moved, boxes)), scores, labels))
    return DetectionSet(
        annotated.class_names, tuple(p.image_id for p in annotated.images), tuple(found)
    )


@pytest.fixture(scope="module")
def forms(shapes, tmp_path_factory):
    """The same detections in all forms, and others."""
    folder = tmp_path_factory.mktemp("forms")
    # all classes of the set, also those that this split lacks
    annotated = read_annotated(shapes, ["test"], read_annotated(shapes).class_names)
    detections = noisy_detections(annotated, 0)
    write_detections_json(folder / "a.json", detections)
    write_detections_csv(folder / "a.csv", detections)
    write_voc_detections(folder / "voc", "test", detections)
    write_detections_json(folder / "b.json", noisy_detections(annotated, 1))
    return folder


def test_all_forms_have_the_same_numbers(shapes, forms, tmp_path):
    on_test = ("--data", shapes, "--split", "test")
    first = result_of(tmp_path, "--detections", forms / "a.json", *on_test)
    assert 0 < first["map_area"] < 1
    assert "coco" not in first
    for name in ("a.csv", "voc"):
        assert result_of(tmp_path, forms / name, *on_test) == first
    same = ("--ground-truth", shapes, "--split", "test")  # the option's other name
    assert result_of(tmp_path, "--detections", forms / "a.json", *same) == first


def test_thresholds_and_metrics(shapes, forms, tmp_path):
    on_test = ("--data", shapes, "--split", "test")
    result = result_of(
        tmp_path, forms / "a.json", *on_test, "--metric", "both", "--iou", 0.75,
        "--iou", "0.5:0.6:0.05",
    )  # fmt: skip
    thresholds = [entry["iou_threshold"] for entry in result["thresholds"]]
    assert thresholds == [0.75, 0.5, 0.55, 0.6]
    assert result["map_area"] == result["thresholds"][0]["map_area"]
    half = result_of(tmp_path, forms / "a.json", *on_test)
    assert result["thresholds"][1]["map_area"] == half["map_area"]
    assert result["thresholds"][1]["map_area"] > result["map_area"]
    coco = result_of(tmp_path, forms / "a.json", *on_test, "--metric", "coco")
    assert set(coco) == {"coco"}
    assert coco["coco"] == result["coco"]
    assert 0 < coco["coco"]["AP75"] < coco["coco"]["AP50"]


def written_case(folder, seed=3):
    """A case in COCO's files, without any image, and the paths of the two."""
    case = random_case(seed)
    truths = [entry for entry in case.truths if min(entry["bbox"][2:]) > 0]
    content = {
        "images": [{"id": n, "file_name": f"no/such/{n}.jpg"} for n in case.images],
        "categories": [{"id": number, "name": f"class {number}"} for number in case.categories],
        "annotations": truths,
    }
    annotations = folder / "coco" / "annotations" / "instances_val.json"
    annotations.parent.mkdir(parents=True)
    annotations.write_text(json.dumps(content))
    (folder / "found.json").write_text(json.dumps(case.found))
    return annotations, folder / "found.json"


def test_coco_results_need_no_images(tmp_path):
    annotations, found = written_case(tmp_path)
    result = result_of(tmp_path, "--detections", found, "--data", annotations)
    truths = read_coco_truths(annotations)
    evaluator = COCOEvaluator(truths.class_names)
    results = read_coco_results(found, truths.image_ids, truths.category_ids)
    evaluator.update(results.by_image(), truths.truths)
    assert result["coco"] == evaluator.compute().as_dict()
    assert set(result) == {"protocol", "map_11point", "map_area", "classes", "coco"}
    folder = tmp_path / "coco"
    assert result_of(tmp_path, found, "--data", folder, "--split", "val") == result
    annotations.rename(annotations.with_name("instances.json"))  # a set without splits
    assert result_of(tmp_path, found, "--data", folder) == result


@pytest.mark.parametrize(
    ("height", "truth", "expected"),
    [
        (5.0, {}, {"AP50": 1.0, "APs": 0.1, "APl": None}),
        (5 - 1e-9, {}, {"AP50": 0.0}),  # as float32, the overlap would be a half
        (5.0, {"area": 90_000}, {"AP50": 1.0, "APs": None, "APl": 0.1}),
        (5.0, {"iscrowd": 1}, {"AP50": None}),
        (5.0, {"difficult": 1}, {"AP50": 1.0}),
    ],
)
def test_coco_numbers_are_of_the_files_as_they_are(tmp_path, height, truth, expected):
    box = {"image_id": 1, "category_id": 1}
    content = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [{**box, "id": 1, "bbox": [0, 0, 10, 10]} | truth],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    found = [{**box, "bbox": [0, 0, 10, height], "score": 0.5}]
    (tmp_path / "found.json").write_text(json.dumps(found))
    result = result_of(tmp_path, tmp_path / "found.json", "--data", tmp_path / "instances.json")
    numbers = {name: result["coco"][name] for name in expected}
    assert numbers == pytest.approx(expected)


def test_saving_converts_the_form(shapes, forms, tmp_path):
    on_test = ("--data", shapes, "--split", "test")
    expected = result_of(tmp_path, forms / "a.json", *on_test)
    for name in ("saved.json", "saved.csv", "saved"):
        evaluate(forms / "a.csv", *on_test, "--save", tmp_path / name)
        assert result_of(tmp_path, tmp_path / name, *on_test) == expected
    assert len(list(csv.DictReader((tmp_path / "saved.csv").open()))) > 10


def test_saved_coco_results_have_the_ids_of_the_ground_truth(tmp_path):
    annotations, found = written_case(tmp_path)
    result = result_of(tmp_path, found, "--data", annotations)
    saved = tmp_path / "saved.coco.json"
    evaluate(found, "--data", annotations, "--save", saved)
    again = result_of(tmp_path, saved, "--data", annotations)
    assert again["map_area"] == result["map_area"]
    ids = {(entry["image_id"], entry["category_id"]) for entry in json.loads(saved.read_text())}
    assert ids == {(e["image_id"], e["category_id"]) for e in json.loads(found.read_text())}


def test_saved_coco_results_match_a_converted_set(shapes, forms, tmp_path):
    saved, converted = tmp_path / "found.coco.json", tmp_path / "coco"
    on_test = ("--data", shapes, "--split", "test")
    first = result_of(tmp_path, forms / "a.json", *on_test, "--save", saved)
    run("data", "convert", shapes, "--to", "coco", "--out", converted)
    on_coco = ("--data", converted, "--split", "test", "--metric", "voc")
    again = result_of(tmp_path, saved, *on_coco)
    for name, entry in again["classes"].items():
        assert entry == pytest.approx(first["classes"][name], nan_ok=True)
    assert again["map_area"] == pytest.approx(first["map_area"])


def test_two_are_set_side_by_side(shapes, forms, tmp_path):
    on_test = ("--data", shapes, "--split", "test")
    result = result_of(tmp_path, forms / "a.json", forms / "b.json", *on_test)
    assert [entry["name"] for entry in result["results"]] == [
        str(forms / "a.json"),
        str(forms / "b.json"),
    ]
    assert result["results"][0]["map_area"] != result["results"][1]["map_area"]
    printed = evaluate(forms / "a.json", forms / "b.json", *on_test)
    difference = result["results"][0]["map_area"] - result["results"][1]["map_area"]
    assert f"{difference:+.4f}" in printed


def halves(annotated):
    """What two models find that see every other object each, with a false box in all images."""
    sets = []
    for parity in (0, 1):
        found = []
        for image in annotated.images:
            seen = image.objects[parity::2]
            boxes = torch.tensor([[0.0, 0, 9, 9], *(item.box for item in seen)])
            names = [annotated.class_names[0], *(item.name for item in seen)]
            labels = torch.tensor([annotated.class_names.index(name) for name in names])
            found.append(Detections.sorted(boxes, torch.linspace(0.1, 0.9, len(labels)), labels))
        ids = tuple(image.image_id for image in annotated.images)
        sets.append(DetectionSet(annotated.class_names, ids, tuple(found)))
    return sets


def test_fused_detections_of_two_that_complete_each_other_are_better(shapes, tmp_path):
    annotated = read_annotated(shapes, ["test"], read_annotated(shapes).class_names)
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file, half in zip(files, halves(annotated), strict=True):
        write_detections_json(file, half)
    on_test = ("--data", shapes, "--split", "test")
    saved = tmp_path / "fused.json"
    result = result_of(tmp_path, *files, *on_test, "--fuse", "--save", saved)["results"]
    first, second, fused = (entry["map_area"] for entry in result)
    assert result[2]["name"] == "fused"
    assert fused > max(first, second) + 0.2
    assert result_of(tmp_path, saved, *on_test)["map_area"] == pytest.approx(fused)
    printed = evaluate(files[0], *on_test, "--fuse", status=2)
    assert "--fuse: expected two runs or files or more, found 1" in printed


def test_detections_fused_with_their_copy_stay_the_same(shapes, forms, tmp_path):
    copy = tmp_path / "copy.json"
    shutil.copy(forms / "a.json", copy)
    options = ("--data", shapes, "--split", "test", "--fuse", "--fuse-iou", 0.99)
    # so high that a box fuses with its copy alone: their mean is the box, with its score
    alone, _, fused = result_of(tmp_path, forms / "a.json", copy, *options)["results"]
    assert fused["map_area"] == pytest.approx(alone["map_area"], abs=1e-6)
    assert fused["map_11point"] == pytest.approx(alone["map_11point"], abs=1e-6)


def test_margins_are_not_fused(shapes, forms, tmp_path):
    found = read_detections_json(forms / "a.json")
    shifted = tuple(Detections(one.boxes, one.scores - 1, one.labels) for one in found.detections)
    file = tmp_path / "margins.json"
    write_detections_json(file, DetectionSet(found.class_names, found.image_ids, shifted))
    on_test = ("--data", shapes, "--split", "test")
    printed = evaluate(forms / "a.json", file, *on_test, "--fuse", status=2)
    assert f"{file}: expected scores in 0…1 to fuse, found -" in printed


def test_significance_compares_the_two(shapes, forms, tmp_path):
    on_test = ("--data", shapes, "--split", "test")
    result = result_of(
        tmp_path, forms / "a.json", forms / "b.json", *on_test,
        "--significance", "--iou", 0.5, "--iou", 0.75, "--resamplings", 50, "--seed", 3,
    )  # fmt: skip
    dataset = read_dataset(shapes, "test")
    expected = [
        compare_detections(
            read_detections_json(forms / "a.json"),
            read_detections_json(forms / "b.json"),
            [*dataset.class_names, *sorted(set(SHAPE_CLASSES) - set(dataset.class_names))],
            dataset.image_ids,
            dataset.truths,
            threshold,
            resamplings=50,
            seed=3,
        ).as_dict()
        for threshold in (0.5, 0.75)
    ]
    assert result["comparisons"] == json.loads(json.dumps(expected))
    assert expected[0] != expected[1]


def test_significance_of_one_is_its_confidence_interval(shapes, forms, tmp_path):
    on_test = ("--data", shapes, "--split", "test", "--significance", "--resamplings", 40)
    result = result_of(tmp_path, forms / "a.json", *on_test)
    (interval,) = result["confidence"]
    assert interval["map_area"]["value"] == pytest.approx(result["map_area"], abs=1e-12)
    assert interval["map_area"]["low"] < result["map_area"] < interval["map_area"]["high"]
    assert interval["num_images"] == result["protocol"]["num_images"]
    assert "40 resamplings" in " ".join(evaluate(forms / "a.json", *on_test).split())


@pytest.fixture(scope="module")
def coco_runs(shapes, tmp_path_factory):
    """A set in COCO's format and two runs on it."""
    folder = tmp_path_factory.mktemp("runs")
    run("data", "convert", shapes, "--to", "coco", "--out", folder / "coco")
    for seed in (0, 1):
        settings = [f"seed={seed}", "data.kind=coco", f"data.root={folder / 'coco'}",
                    "data.num_workers=0", "training.epochs=20", "training.evaluate_every=20",
                    "training.batch_size=4",
                    "detector.score_threshold=0.0001"]  # fmt: skip
        run("train", CONFIG, *settings, "--out", folder / str(seed))
    return folder


def test_a_run_on_coco_data_is_judged_by_both(coco_runs, tmp_path):
    result = result_of(tmp_path, coco_runs / "0")
    assert set(result) == {"protocol", "map_11point", "map_area", "classes", "coco"}
    assert result["coco"]["AP50"] > 0
    file = coco_runs / "coco" / "annotations" / "instances_test.json"
    saved = coco_runs / "0" / "detections-test.json"
    assert result_of(tmp_path, saved, "--data", file)["coco"] == result["coco"]
    own = json.loads((coco_runs / "0" / "evaluation.json").read_text())
    assert result["map_area"] == own["map_area"]


def test_two_runs_are_compared(coco_runs, tmp_path):
    runs = [coco_runs / "0", coco_runs / "1"]
    result = result_of(tmp_path, *runs, "--significance", "--resamplings", 20, "--iou", "0.1")
    first, second = result["results"]
    assert first["map_area"] != second["map_area"]
    (comparison,) = result["comparisons"]
    difference = comparison["map_area"]["difference"]["value"]
    assert difference == pytest.approx(first["map_area"] - second["map_area"])
    # a run beside its own detections
    saved = tmp_path / "saved.json"
    evaluate(runs[0], "--save", saved)
    result = result_of(tmp_path, runs[0], saved, "--significance", "--resamplings", 20)
    assert result["comparisons"][0]["map_area"]["difference"]["value"] == 0
    assert result["comparisons"][0]["map_area"]["p_value"] == 1


def test_two_runs_detect_together(coco_runs, shapes, tmp_path):
    image = min((shapes / "JPEGImages").glob("*.jpg"))
    runs = [coco_runs / "0", coco_runs / "1"]
    options = ["--with", runs[1], "--score", 0, "--save", "json", "--out", tmp_path]
    run("infer", runs[0], image, *options)
    (found,) = read_detections_json(tmp_path / "detections.json").detections
    alone = [load(one).predict(image, score_threshold=0) for one in runs]
    (expected,) = fuse_detections({str(n): [one] for n, one in enumerate(alone)})
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=0.01)
    assert 0 < len(found) < len(alone[0]) + len(alone[1])


def test_models_that_cannot_be_fused(coco_runs, shapes, tmp_path):
    image = min((shapes / "JPEGImages").glob("*.jpg"))
    first = coco_runs / "0"
    content = load_checkpoint(first / "checkpoints" / "best.pt")
    content["class_names"] = ["disc", *content["class_names"][1:]]
    other = tmp_path / "other.pt"
    save_checkpoint(other, content)
    printed = run("infer", first, image, "--with", other, "--out", tmp_path / "out", status=2)
    assert f"{other}: expected the classes of {first}" in printed
    assert f"found {SHAPE_CLASSES[0]}, disc in one of them alone" in " ".join(printed.split())
    printed = run("infer", first, image, "--with", first, "--out", tmp_path / "out", status=2)
    assert "--with: expected each model once" in printed


def test_runs_of_other_images_are_not_compared(coco_runs, shapes):
    runs = [coco_runs / "0", coco_runs / "1"]
    printed = evaluate(*runs, f"data.root={shapes}", "data.kind=voc", status=0)
    assert "first − second" in printed  # the settings hold for both
    file = coco_runs / "coco" / "annotations" / "instances_test.json"
    printed = evaluate(runs[0], "--data", file, status=2)
    assert "since a model needs the images, found a file" in printed


def test_classes_without_objects_are_told_of(shapes, tmp_path):
    header = "image_id,class,score,x1,y1,x2,y2\n"
    image_id = read_annotated(shapes, ["test"]).images[0].image_id
    path = tmp_path / "found.csv"
    path.write_text(f"{header}{image_id},circel,0.5,1,1,9,9\n")
    printed = evaluate(path, "--data", shapes, "--split", "test")
    assert "no object of the class 'circel' of the detections; did you mean 'circle'?" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "found nothing to judge"),
        (["a.json"], "detections need the ground truth: give --data (or --ground-truth) ROOT"),
        (["a.json", "x=1", "--data", "."], "x=1: expected settings beside a run"),
        (["a.json", "a.json", "--data", "."], "expected each run and file once, found it twice"),
        (
            ["a.json", "b.json", "c.json", "--data", ".", "--significance"],
            "expected one or two, found 3",
        ),
        (["a.json", "b.csv", "--data", ".", "--save", "c.json"], "expected one run or file"),
        (["a.json", "--data", ".", "--metric", "coco", "--iou", "0.5"], "COCO's protocol are fix"),
        (["a.json", "--data", ".", "--iou", "0"], "more than 0 and at most 1, found 0.0"),
        (["a.json", "--data", "x.json", "--split", "val"], "which is one split as a whole"),
        (["no/such/run"], "expected a checkpoint file or a run folder"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message):
    assert message in evaluate(*arguments, status=2)


def test_ground_truth_that_does_not_fit_is_refused(shapes, forms, tmp_path):
    printed = evaluate(forms / "a.json", "--data", shapes, status=2)
    assert "expected --split NAME beside the folder; there are: test" in printed
    results = tmp_path / "results.json"
    results.write_text("[]")
    on_test = ("--data", shapes, "--split", "test")
    printed = evaluate(results, *on_test, status=2)
    assert "ids of an annotation file, found a data set without one" in printed


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["0.5"], (0.5,)),
        (["0.5", "0.75", "0.5"], (0.5, 0.75)),
        (["0.5:0.95:0.05"], (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)),
        (["0.1:0.3:0.1"], (0.1, 0.2, 0.3)),
        (["0.5:0.7:0.15"], (0.5, 0.65)),
        (["1"], (1.0,)),
        ([], ()),
    ],
)
def test_thresholds_are_the_decimals_that_are_meant(texts, expected):
    assert parse_thresholds(texts) == expected


@pytest.mark.parametrize(
    "text", ["", "half", "0.5:0.9", "0.9:0.5:0.1", "0.5:0.9:0", "0:1:0.1", "nan", "1.5",
             "0.5:0.9:1e-9", "nan:1:1", "0.1:inf:0.1"]
)  # fmt: skip
def test_other_thresholds_are_refused(text):
    with pytest.raises(DetectError, match="--iou: expected"):
        parse_thresholds([text])
