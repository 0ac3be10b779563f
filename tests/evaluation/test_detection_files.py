import json
import math

import numpy as np
import pytest
import torch

from detect.errors import DetectError
from detect.evaluation import (
    DetectionSet,
    VOCEvaluator,
    evaluate_detection_set,
    read_detections,
    read_detections_json,
    read_voc_detections,
    write_detections_json,
    write_voc_detections,
)
from detect.structures import Detections, GroundTruth, StructureError
from tests.evaluation.voc_cases import ONE, random_case, slow_average_precisions
from tests.reference.voc import evaluate_class

CLASSES = ("cat", "dog", "sea horse")
IDS = ("000001", "000002", "img_3")


def records(seed=0, count=40):
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(*shape, generator=generator)

    # numbers of all magnitudes, so that all digits of float32 matter
    corners = rand(count, 2) * 10 ** (rand(count, 1) * 8 - 4)
    boxes = torch.cat((corners, corners + rand(count, 2) * 300), dim=1)
    scores = (rand(count) - 0.5) * 10 ** (rand(count) * 30 - 20)
    scores[3:6] = scores[2]
    return Detections.sorted(boxes, scores, torch.arange(count) % 3)


def detection_set():
    return DetectionSet(CLASSES, IDS, (records(1), Detections.empty(), records(2)))


def rows_of(found, label):
    """Boxes and scores of one class: the order between classes is not kept in VOC's files."""
    kept = found.labels == label
    return found.boxes[kept].tolist(), found.scores[kept].tolist()


def assert_same(one, other):
    assert one.class_names == other.class_names
    assert one.image_ids == other.image_ids
    for found, twin in zip(one.detections, other.detections, strict=True):
        assert len(found) == len(twin)
        for label in range(len(one.class_names)):
            assert rows_of(found, label) == rows_of(twin, label)  # bit by bit


def test_json_gives_back_what_was_written(tmp_path):
    path = tmp_path / "detections.json"
    write_detections_json(path, detection_set())
    result = read_detections_json(path)
    assert_same(result, detection_set())
    for found, twin in zip(result.detections, detection_set().detections, strict=True):
        assert found.labels.tolist() == twin.labels.tolist()


def test_json_has_the_documented_form_and_short_numbers(tmp_path):
    path = tmp_path / "detections.json"
    found = Detections(
        torch.tensor([[0.1, 12.3, 20, 30.7]]), torch.tensor([0.9]), torch.tensor([1])
    )
    write_detections_json(path, DetectionSet(("cat", "größe"), ("1", "2"), (found, found)))
    image = {"boxes": [[0.1, 12.3, 20.0, 30.7]], "scores": [0.9], "labels": [1]}
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "format": "detect-detections-1",
        "class_names": ["cat", "größe"],
        "boxes": "xyxy pixels, 0-based, half-open",
        "images": [{"image_id": "1", **image}, {"image_id": "2", **image}],
    }
    assert len(path.read_text(encoding="utf-8").splitlines()) == 4  # one image a line
    write_detections_json(path, DetectionSet((), (), ()))
    assert len(read_detections_json(path)) == 0


def test_voc_files_give_back_what_was_written(tmp_path):
    write_voc_detections(tmp_path, "test", detection_set())
    result = read_voc_detections(tmp_path, "test", IDS)
    assert_same(result.detections, detection_set())
    assert result.classes_without_file == ()


def test_voc_files_have_the_documented_form(tmp_path):
    found = Detections(
        torch.tensor([[0.0, 9, 20, 30.5], [7, 8, 9, 10]]),
        torch.tensor([0.9, -2]),
        torch.tensor([0, 1]),
    )
    write_voc_detections(tmp_path, "val", DetectionSet(("cat", "dog", "cow"), ("a1",), (found,)))
    files = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert files == {
        "comp4_det_val_cat.txt": "a1 0.9 1.0 10.0 20.0 30.5\n",
        "comp4_det_val_dog.txt": "a1 -2.0 8.0 9.0 9.0 10.0\n",
        "comp4_det_val_cow.txt": "",
    }


def test_small_coordinates_in_voc_files_come_back_exactly(tmp_path):
    # 1 is added to them in float64, which leaves few of their digits
    starts = 10 ** (torch.rand(2000, 2, generator=torch.Generator().manual_seed(1)) * 3 - 8)
    boxes = torch.cat((starts, starts + 1), dim=1)
    found = Detections(boxes, torch.zeros(2000), torch.zeros(2000, dtype=torch.int64))
    write_voc_detections(tmp_path, "val", DetectionSet(("cat",), ("a",), (found,)))
    (result,) = read_voc_detections(tmp_path, "val", ("a",)).detections.detections
    assert torch.equal(result.boxes, boxes)


def test_tiny_coordinates_in_voc_files_come_back_almost(tmp_path):
    found = Detections(
        torch.tensor([[1e-20, 3e-9, 1e-20, 5]]), torch.tensor([1.0]), torch.tensor([0])
    )
    write_voc_detections(tmp_path, "val", DetectionSet(("cat",), ("a",), (found,)))
    (result,) = read_voc_detections(tmp_path, "val", ("a",)).detections.detections
    assert (result.boxes - found.boxes).abs().max() < 1e-15


@pytest.mark.parametrize("image_id", ["", "a b", "a\tb", " a", "a\n"])
def test_ids_with_spaces_cannot_be_expressed_in_voc_files(tmp_path, image_id):
    with pytest.raises(DetectError, match="cannot express an id that is empty or has spaces"):
        write_voc_detections(
            tmp_path, "val", DetectionSet(("cat",), (image_id,), (Detections.empty(),))
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "a/b", "a\\b"])
def test_class_names_that_are_no_file_names_cannot_be_expressed(tmp_path, name):
    with pytest.raises(DetectError, match="it cannot be part of a file name"):
        write_voc_detections(tmp_path, "val", DetectionSet((name,), (), ()))


def voc_folder(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.txt").write_bytes(text.encode())
    return folder


def test_voc_files_of_others_are_read(tmp_path):
    voc_folder(
        tmp_path,
        comp3_det_test_cat="\ufeff000002 .5 1 1 10 20\r\n\r\n  000001\t-1E-1 +5 5. 10 20  \r\n",
        comp4_det_test_dog="000001 1 1 1 1 1",  # one pixel; no line end
        comp4_det_train_cow="garbage",  # another split
        readme="garbage",
    )
    result = read_voc_detections(tmp_path, "test", ("000001", "000002"), ("cow", "dog", "cat"))
    assert result.classes_without_file == ("cow",)
    first, second = result.detections.detections
    assert first.labels.tolist() == [1, 2]
    assert first.boxes.tolist() == [[0, 0, 1, 1], [4, 4, 10, 20]]
    assert first.scores.tolist() == pytest.approx([1, -0.1])
    assert second.boxes.tolist() == [[0, 0, 10, 20]]
    assert result.detections.class_names == ("cow", "dog", "cat")
    # without names, the classes are those of the files
    assert read_voc_detections(tmp_path, "test", IDS).detections.class_names == ("cat", "dog")


def test_class_and_split_may_have_underscores_and_dots(tmp_path):
    voc_folder(tmp_path, **{"comp4_det_test.1_a_sea horse_x": "000001 1 1 1 5 5"})
    voc_folder(tmp_path, **{"comp4_det_test-1_a_dog": "garbage"})  # the dot is no wildcard
    result = read_voc_detections(tmp_path, "test.1_a", IDS)
    assert result.detections.class_names == ("sea horse_x",)


GOOD = "000001 0.9 1 1 10 10\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "000001 0.9 1 1 10",
            "expected 6 fields, <image id> <score>.* found 5: '000001 0.9 1 1 10'",
        ),
        ("000001 0.9 1 1 10 10 1", "expected 6 fields.*found 7"),
        ("000001,0.9,1,1,10,10", "expected 6 fields.*found 1"),
        ("000001 nan 1 1 10 10", "score: expected a finite number, found 'nan'"),
        ("000001 inf 1 1 10 10", "score: expected a finite number, found 'inf'"),
        ("000001 0.9 1 1 1_0 10", "xmax: expected a finite number, found '1_0'"),
        ("000001 0.9 1 x 10 10", "ymin: expected a finite number, found 'x'"),
        ("000001 0.9 1 1 10 0x10", "ymax: expected a finite number, found '0x10'"),
        ("000001 0.9 1 1 10 ١٢", "ymax: expected a finite number"),
        ("000001 1e60 1 1 10 10", r"all below 3e38, found 1e\+60 1 1 10 10"),
        ("000001 0.9 1 1 10 1e400", "all below 3e38, found 0.9 1 1 10 inf"),
        ("000001 0.9 30 30 10 10", "xmin ≤ xmax .*found 0.9 30 30 10 10; is it x, y, width and"),
        ("000001 0.9 1 30 10 10", "xmin ≤ xmax and ymin ≤ ymax"),
        (
            "00001 0.9 1 1 10 10",
            "unknown image '00001': expected images of the split; did you mean",
        ),
        ("zzz 0.9 1 1 10 10", "unknown image 'zzz': .*; there are: 000001, 000002, img_3"),
    ],
)
def test_a_faulty_row_is_named(tmp_path, line, message):
    voc_folder(tmp_path, comp4_det_test_cat=GOOD + "\n" + line + "\n" + GOOD)
    with pytest.raises(DetectError, match=rf"comp4_det_test_cat\.txt, line 3: .*{message}"):
        read_voc_detections(tmp_path, "test", IDS)


def test_a_line_of_digits_is_refused_without_delay(tmp_path):
    voc_folder(tmp_path, comp4_det_test_cat="000001 " + "1" * 200_000 + "x 1 1 10 10")
    with pytest.raises(DetectError, match="score: expected a finite number"):
        read_voc_detections(tmp_path, "test", IDS)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "expected files named comp4_det_test_<class>.txt, found none of this kind"),
        ({"comp4_det_val_cat": ""}, "found comp4_det_val_cat.txt; check the folder and the name"),
        (
            {"comp3_det_test_cat": "", "comp4_det_test_cat": ""},
            "expected one file for the class 'cat', found comp3_det_test_cat.txt and comp4",
        ),
        ({"comp4_det_test_catt": ""}, "unknown class 'catt': .*; did you mean 'cat'?"),
        ({"comp4_det_test_xyz": ""}, "unknown class 'xyz': .*; there are: cat, dog, sea horse"),
    ],
)
def test_a_faulty_folder_is_named(tmp_path, files, message):
    with pytest.raises(DetectError, match=message):
        read_voc_detections(voc_folder(tmp_path, **files), "test", IDS, CLASSES)


def test_what_cannot_be_read_is_a_readable_error(tmp_path):
    with pytest.raises(DetectError, match="absent: cannot be read: No such file"):
        read_voc_detections(tmp_path / "absent", "test", IDS)
    (tmp_path / "comp4_det_test_cat.txt").write_bytes(b"000001 \xff")
    with pytest.raises(DetectError, match=r"cat\.txt: expected text in UTF-8"):
        read_voc_detections(tmp_path, "test", IDS)


def good_json():
    image = {"image_id": "1", "boxes": [[0, 1, 2, 3], [4, 5, 6, 7]], "scores": [1, 0.5]}
    return {
        "format": "detect-detections-1",
        "class_names": ["cat", "dog"],
        "boxes": "xyxy pixels, 0-based, half-open",
        "images": [{**image, "labels": [0, 1]}, {**image, "image_id": "2", "labels": [1, 1]}],
    }


def changed(*keys, value):
    content = good_json()
    part = content
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    return content


def without(*keys):
    content = good_json()
    part = content
    for key in keys[:-1]:
        part = part[key]
    del part[keys[-1]]
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"expected an object with format, class_names, boxes, images, found \[\]"),
        (without("images"), "expected the keys .*: images is missing"),
        (changed("more", value=1), "expected the keys .*: unknown more"),
        (changed("format", value="detect-detections-2"), "format: expected 'detect-detections-1'"),
        (changed("boxes", value="xywh"), "boxes: expected 'xyxy pixels.*found 'xywh'"),
        (changed("class_names", value="cat"), "class_names: expected a list of names, found 'cat'"),
        (changed("class_names", value=["cat", 3]), "class_names: expected a list of names"),
        (changed("class_names", value=["cat", "cat"]), "class_names: expected each once.*'cat'"),
        (changed("images", value={}), r"images: expected a list, found \{\}"),
        (changed("images", 1, value=None), "image 2: expected an object with image_id.*found None"),
        (without("images", 1, "scores"), "image 2: expected the keys .*: scores is missing"),
        (changed("images", 1, "image_id", value=7), "image 2: image_id: expected a name, found 7"),
        (
            changed("images", 1, "image_id", value="1"),
            "images: expected each once, found '1' twice",
        ),
        (changed("images", 1, "boxes", value=5), r"image 2 \(2\): boxes: expected a list, found 5"),
        (changed("images", 1, "boxes", 1, value=[1, 2, 3]), "boxes, row 2: expected 4 finite"),
        (changed("images", 1, "boxes", 1, value=[[1], 2, 3, 4]), "boxes, row 2: expected 4 finite"),
        (changed("images", 1, "boxes", 1, 0, value="1"), "boxes, row 2: expected 4 finite numbers"),
        (
            changed("images", 1, "boxes", 1, 0, value=True),
            "boxes, row 2: expected 4 finite numbers",
        ),
        (changed("images", 1, "boxes", 1, 0, value=math.nan), "boxes, row 2: expected 4 finite"),
        (changed("images", 1, "boxes", 1, 0, value=-1e39), "boxes, row 2: expected 4 finite"),
        (changed("images", 1, "boxes", 1, 0, value=99), "boxes, row 2: expected x1 ≤ x2 and y1 ≤"),
        (changed("images", 1, "scores", 0, value=math.inf), "scores, row 1: expected a finite"),
        (changed("images", 1, "scores", 0, value=10**400), "scores, row 1: expected a finite"),
        (changed("images", 1, "scores", 0, value=None), "scores, row 1: expected a finite number"),
        (changed("images", 1, "scores", value=[1]), "scores: expected one for each of the 2 boxes"),
        (changed("images", 1, "labels", value=[1]), "labels: expected one for each of the 2 boxes"),
        (changed("images", 1, "labels", 1, value=2), "labels, row 2: expected 0 … 1, found 2"),
        (changed("images", 1, "labels", 1, value=-1), "labels, row 2: expected 0 … 1, found -1"),
        (changed("images", 1, "labels", 1, value=1.0), "labels, row 2: expected a whole number"),
        (changed("images", 1, "labels", 1, value=True), "labels, row 2: expected a whole number"),
        (changed("images", 1, "labels", 1, value=10**30), "labels, row 2: expected a whole number"),
    ],
)
def test_faulty_json_is_named(tmp_path, content, message):
    path = tmp_path / "detections.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DetectError, match=rf"detections\.json: .*{message}"):
        read_detections_json(path)


def test_good_json_is_read_whatever_the_order_of_its_rows(tmp_path):
    path = tmp_path / "detections.json"
    path.write_text(json.dumps(changed("images", 1, "scores", value=[0.25, 0.5])))
    first, second = read_detections_json(path).detections
    assert first.scores.tolist() == [1, 0.5]
    assert second.scores.tolist() == [0.5, 0.25]
    assert second.boxes.tolist() == [[4, 5, 6, 7], [0, 1, 2, 3]]


def test_the_path_tells_the_format(tmp_path):
    write_detections_json(tmp_path / "a.json", detection_set())
    write_voc_detections(tmp_path / "voc", "test", detection_set())
    from_json = read_detections(tmp_path / "a.json", "test", IDS)
    from_folder = read_detections(tmp_path / "voc", "test", IDS, (*CLASSES, "cow"))
    assert_same(from_json.detections, detection_set())
    assert from_folder.classes_without_file == ("cow",)
    with pytest.raises(DetectError, match="for the text files of VOC give the folder"):
        read_detections(tmp_path / "voc" / "comp4_det_test_cat.txt", "test", IDS)
    with pytest.raises(DetectError, match="absent: cannot be read"):
        read_detections(tmp_path / "absent", "test", IDS)


BOX = torch.tensor([[0.0, 0, 4, 4]])
ONE_FOUND = Detections(BOX, torch.ones(1), torch.ones(1, dtype=torch.int64))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            (("a", "b", "a"), ("1",), (ONE_FOUND,)),
            "class_names: expected each name once, found 'a'",
        ),
        ((("a", "b"), ("1", "1"), (ONE_FOUND,) * 2), "image_ids: expected each name once"),
        (
            (("a", "b"), ("1", "2"), (ONE_FOUND,)),
            "detections: expected one record for each of the 2",
        ),
        (
            (("a", "b"), ("1",), (ONE_FOUND,), ()),
            "tie_ranks: expected one record for each of the 1",
        ),
        ((("a",), ("1",), (ONE_FOUND,)), "detections of 1: expected labels below 1, found 1"),
        (
            (("a", "b"), ("1",), (ONE_FOUND,), (torch.zeros(2, dtype=torch.int64),)),
            r"tie_ranks: expected \[1\], found \[2\]",
        ),
        (
            (
                ("a", "b"),
                ("1",),
                (Detections(BOX[:, [2, 1, 0, 3]], ONE_FOUND.scores, ONE_FOUND.labels),),
            ),
            "detections of 1: expected x1 ≤ x2 and y1 ≤ y2, found .* in row 0",
        ),
    ],
)
def test_a_faulty_set_is_named(fields, message):
    with pytest.raises(StructureError, match=f"DetectionSet.{message}"):
        DetectionSet(*fields)


def test_alignment_maps_classes_by_name_and_images_by_id():
    aligned = detection_set().aligned(
        ("sea horse", "cow", "dog", "cat"), ("new", "img_3", *IDS[:2])
    )
    assert aligned.image_ids == ("new", "img_3", "000001", "000002")
    assert [len(found) for found in aligned.detections] == [0, 40, 40, 0]
    for label, new_label in ((0, 3), (1, 2), (2, 0)):
        expected = rows_of(detection_set().detections[2], label)
        assert rows_of(aligned.detections[1], new_label) == expected


@pytest.mark.parametrize(
    ("class_names", "image_ids", "message"),
    [
        (("cats", "dog", "sea horse"), IDS, "unknown class 'cat': .*; did you mean 'cats'?"),
        (("mouse",), IDS, "unknown class 'cat': .*; there are: mouse"),
        (CLASSES, ("000001", "img_3"), "unknown image '000002': .*; did you mean '000001'"),
    ],
)
def test_what_is_not_in_the_truth_is_an_error(class_names, image_ids, message):
    with pytest.raises(DetectError, match=message):
        detection_set().aligned(class_names, image_ids)


def test_evaluation_of_files_equals_that_of_records(tmp_path):
    case = random_case(1)
    ids = [f"{number:06}" for number in range(len(case.truths))]
    evaluator = VOCEvaluator(case.class_names, 0.4)
    evaluator.update(case.detections, case.truths)
    expected = evaluator.compute().as_dict()
    found = DetectionSet(tuple(case.class_names), tuple(ids), tuple(case.detections))
    write_detections_json(tmp_path / "a.json", found)
    write_voc_detections(tmp_path / "voc", "test", found)
    for path in (tmp_path / "a.json", tmp_path / "voc"):
        result = read_detections(path, "test", ids, case.class_names).detections
        report = evaluate_detection_set(result, case.class_names, ids, case.truths, 0.4)
        assert report.as_dict() == expected
    assert expected["map_area"] > 0.02


@pytest.mark.parametrize("seed", range(6))
def test_voc_files_in_any_order_are_judged_as_the_devkit_does(tmp_path, seed):
    """Equal scores count in the order of the file, over all images, and float64 scores differ."""
    case = random_case(seed)
    ids = [f"{number:06}" for number in range(len(case.truths))]
    generator = np.random.default_rng(seed)
    results = {}
    for label, name in enumerate(case.class_names):
        rows = []
        for image, found in enumerate(case.detections):
            kept = found.labels == label
            boxes = (found.boxes[kept] + ONE).int().tolist()
            # some pairs are equal as float32 and differ as float64
            scores = (found.scores[kept].double() + 1e-12 * (image % 2)).tolist()
            rows += [(image, score, box) for score, box in zip(scores, boxes, strict=True)]
        generator.shuffle(rows)
        lines = [
            f"{ids[image]} {score!r} {' '.join(map(str, box))}\n" for image, score, box in rows
        ]
        voc_folder(tmp_path, **{f"comp4_det_test_{name}": "".join(lines)})
        objects = {
            image: [
                (box, difficult)
                for box, its_label, difficult in zip(
                    (truth.boxes + ONE).tolist(),
                    truth.labels.tolist(),
                    truth.difficult.tolist(),
                    strict=True,
                )
                if its_label == label
            ]
            for image, truth in enumerate(case.truths)
        }
        results[name] = slow_average_precisions(*evaluate_class(rows, objects, 0.5))
    result = read_voc_detections(tmp_path, "test", ids, case.class_names).detections
    report = evaluate_detection_set(result, case.class_names, ids, case.truths)
    for name, entry in report.classes.items():
        assert (entry.ap_11point, entry.ap_area) == pytest.approx(
            results[name], abs=1e-12, nan_ok=True
        )


def test_alignment_keeps_the_order_of_the_file(tmp_path):
    voc_folder(tmp_path, comp4_det_test_cat="b 0.5 1 1 9 9\na 0.5 1 1 9 9\n")
    found = read_voc_detections(tmp_path, "test", ("a", "b")).detections
    hit = GroundTruth(
        torch.tensor([[0.0, 0, 9, 9]]),
        torch.zeros(1, dtype=torch.int64),
        torch.zeros(1, dtype=torch.bool),
    )
    miss = GroundTruth.empty()
    ids = ("a", "new", "b")
    assert evaluate_detection_set(found, ("cat",), ids, (miss, miss, hit)).map_area == 1
    assert evaluate_detection_set(found, ("cat",), ids, (hit, miss, miss)).map_area == 0.5


def with_joints(found, num_joints=4, seed=5):
    joints = torch.randn(len(found), num_joints, 2, generator=torch.Generator().manual_seed(seed))
    return Detections(found.boxes, found.scores, found.labels, 100 * joints)


def test_joints_are_written_and_read(tmp_path):
    path = tmp_path / "detections.json"
    found = (with_joints(records(1)), with_joints(Detections.empty()), records(2))
    write_detections_json(path, DetectionSet(CLASSES, IDS, found))
    read = read_detections_json(path).detections
    assert torch.equal(read[0].joints, found[0].joints)
    assert len(read[1].joints) == 0
    assert read[2].joints is None


@pytest.mark.parametrize(
    ("joints", "message"),
    [
        ("many", "joints: expected a list for each of the 2 boxes, found 'many'"),
        ([[[1, 2]]], "joints: expected a list for each of the 2 boxes, found 1"),
        ([[[1, 2]], [[1, 2], [3, 4]]], r"joints: expected as many in each row, found \[1, 2\]"),
        ([[[1, 2]], [[1]]], r"joints, row 2, row 1: expected 2 finite numbers, found \[1\]"),
        ([[[1, 2]], 7], "joints, row 2: expected a list, found 7"),
    ],
)
def test_faulty_joints_are_named(tmp_path, joints, message):
    path = tmp_path / "detections.json"
    found = records(1)
    two = Detections(found.boxes[:2], found.scores[:2], found.labels[:2])
    write_detections_json(path, DetectionSet(CLASSES, ("a",), (two,)))
    content = json.loads(path.read_text())
    content["images"][0]["joints"] = joints
    path.write_text(json.dumps(content))
    with pytest.raises(DetectError, match=message):
        read_detections_json(path)
