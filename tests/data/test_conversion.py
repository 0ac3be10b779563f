"""Conversions between the formats keep all that they can, and say what they cannot."""

import contextlib
import io
import re
import shutil

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detect.data import (
    draw_shapes,
    read_annotated,
    read_dataset,
    write_annotated,
)
from detect.data.annotated import AnnotatedImage, AnnotatedObject, AnnotatedSet
from detect.errors import DetectError
from detect.files import read_json, write_json
from tests.data.voc_folder import VOCFolder, annotation_xml, object_xml, photo

SIZE = (40, 60)
NAMES = ("dog", "cat", "ant")


def random_voc(root, num_images=12, seed=0, whole=True):
    """A VOC folder with random boxes, flags and extras; a joint split besides two others."""
    generator = np.random.default_rng(seed)
    folder = VOCFolder(root)
    ids = [f"2007_{number:06}" for number in range(1, num_images + 1)]
    for image_id in ids:
        objects = []
        for _ in range(generator.integers(0, 5)):
            x, y = np.sort(generator.uniform(1, 60, 2)), np.sort(generator.uniform(1, 40, 2))
            box = [min(x[0], 57), min(y[0], 37), min(x[1] + 2, 60), min(y[1] + 2, 40)]
            box = [round(v) for v in box] if whole else [round(v, 2) for v in box]
            difficult, crowd, truncated = generator.integers(0, 2, 3)
            extra = f"<difficult>{difficult}</difficult><crowd>{crowd}</crowd>"
            extra += f"<truncated>{truncated}</truncated><pose>Left</pose>"
            objects.append(object_xml(NAMES[generator.integers(3)], box, extra))
        folder.add(image_id, annotation_xml(*objects), photo(SIZE))
    folder.split("train", *ids[:7])
    folder.split("val", *ids[7:10])
    folder.split("trainval", *ids[:10])
    folder.split("test", *ids[10:])
    return root


def convert(annotated, out, *formats):
    """Write and read one format after another; the last set, and what was lost on the way."""
    losses = []
    for number, data_format in enumerate(formats):
        folder = out / f"{number}{data_format}"
        losses += write_annotated(annotated, folder, data_format).losses
        annotated = read_annotated(folder)
        assert annotated.data_format == data_format
        assert annotated.faults == ()
    return annotated, losses


def content(annotated, without=()):
    """All that must be kept, boxes apart."""

    def extras(record):
        return {key: value for key, value in record.extras.items() if key not in without}

    return {
        p.image_id: (
            p.size,
            p.splits,
            extras(p),
            [(o.name, o.difficult, o.crowd, extras(o)) for o in p.objects],
        )
        for p in annotated.images
    }


def boxes(annotated):
    images = sorted(annotated.images, key=lambda p: p.image_id)
    return np.array([item.box for photo in images for item in photo.objects])


def coco_set(root, **fields):
    """A COCO folder with ids, gaps, polygons and decimals that no rule would give."""
    images = [
        {"id": 900 - number, "file_name": f"b{number}.png", "height": 40, "width": 60, "license": 2}
        for number in range(5)
    ]
    generator = np.random.default_rng(1)
    annotations = []
    for number in range(12):
        x, y, width, height = generator.uniform(2, 20, 4).round(2).tolist()
        annotations.append(
            {
                "id": 1000 - 3 * number,
                "image_id": 900 - number % 5,
                "category_id": (90, 7)[number % 2],
                "bbox": [x, y, width, height],
                "area": 12.5,
                "iscrowd": number % 3 == 0,
                "segmentation": [[x, y, x + 1.5, y, x, y + 2]],
                "attributes": {"occluded": False, "note": None},
            }
        )
    categories = [
        {"id": 7, "name": "zebra", "supercategory": "animal"},
        {"id": 90, "name": "ant", "supercategory": "animal", "color": [1, 2]},
        {"id": 91, "name": "unused", "supercategory": "animal"},
    ]
    plain = {"info": {"year": 2026}, "licenses": [{"id": 2}], "images": images}
    plain |= {"annotations": annotations, "categories": categories} | fields
    write_json(root / "annotations" / "instances_train.json", plain)
    for image in images:
        (root / "images").mkdir(exist_ok=True)
        (root / "images" / image["file_name"]).write_bytes(photo(SIZE))
    return plain


# ---- what is kept -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_voc_to_coco_to_yolo_to_voc(tmp_path, seed):
    source = read_annotated(random_voc(tmp_path / "voc", seed=seed))
    result, losses = convert(source, tmp_path, "coco", "yolo", "voc")
    assert losses == []
    assert content(result, without=("id",)) == content(source)
    assert result.class_names == source.class_names
    np.testing.assert_allclose(boxes(result), boxes(source), rtol=0, atol=1e-3)
    kept = {p.image_id: p.image_path.read_bytes() for p in source.images}
    assert {p.image_id: p.image_path.read_bytes() for p in result.images} == kept


def test_voc_to_coco_and_back_is_exact(tmp_path):
    for whole in (True, False):
        source = read_annotated(random_voc(tmp_path / f"voc{whole}", whole=whole))
        result, _ = convert(source, tmp_path / f"{whole}", "coco", "voc")
        np.testing.assert_array_equal(boxes(result), boxes(source))
    # whole numbers are written as such, decimals as they were
    texts = [path.read_text() for path in (tmp_path / "True/1voc/Annotations").iterdir()]
    assert not any("." in line for text in texts for line in text.splitlines() if "<x" in line)
    for path in (tmp_path / "False/1voc/Annotations").iterdir():
        old = (tmp_path / "vocFalse/Annotations" / path.name).read_text()
        coordinates = re.compile(r"<([xy]m..)>([0-9.]+)<")
        found = [(tag, float(text)) for tag, text in coordinates.findall(path.read_text())]
        assert found == [(tag, float(text)) for tag, text in coordinates.findall(old)]


@pytest.mark.parametrize("way", ["voc", "yolo"])
def test_coco_and_back_gives_the_same_file(tmp_path, way):
    plain = coco_set(tmp_path / "coco")
    source = read_annotated(tmp_path / "coco")
    assert source.faults == ()
    _, losses = convert(source, tmp_path, way, "coco")
    assert losses == []
    result = read_json(tmp_path / "1coco" / "annotations" / "instances_train.json")
    assert result["categories"] == plain["categories"]
    assert (result["info"], result["licenses"]) == (plain["info"], plain["licenses"])
    for key in ("images", "annotations"):
        found = {entry["id"]: entry for entry in result[key]}
        for entry in plain[key]:
            own = found.pop(entry["id"])
            own.pop("difficult", None)
            box = own.pop("bbox", None), entry.pop("bbox", None)
            assert own == entry
            if box[0] is not None:
                exactness = 1e-9 if way == "voc" else 1e-5
                np.testing.assert_allclose(box[0], box[1], rtol=0, atol=exactness)
        assert found == {}


def test_ids_are_the_same_on_every_run(tmp_path):
    source = random_voc(tmp_path / "voc")
    for name in ("a", "b"):
        write_annotated(read_annotated(source), tmp_path / name, "coco")
    for file in (tmp_path / "a" / "annotations").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / "annotations" / file.name).read_bytes()
    content = read_json(tmp_path / "a" / "annotations" / "instances_train.json")
    assert [image["id"] for image in content["images"]][:2] == [2007000001, 2007000002]
    assert [category["id"] for category in content["categories"]] == [1, 2, 3]


def test_real_images_there_and_back(tmp_path, shared):
    source = read_annotated(shared / "data" / "voc2012_sample")
    result, losses = convert(source, tmp_path, "coco", "yolo", "voc")
    assert losses == []
    assert content(result, without=("id",)) == content(source)
    np.testing.assert_array_equal(boxes(result), boxes(source))
    before = read_dataset(source.root, "test", classes="voc")
    after = read_dataset(tmp_path / "2voc", "test", classes="voc")
    assert before.image_ids == after.image_ids


@pytest.mark.parametrize("data_format", ["voc", "coco", "yolo"])
def test_a_set_without_splits(tmp_path, data_format):
    root = random_voc(tmp_path / "voc")
    shutil.rmtree(root / "ImageSets")
    source = read_annotated(root)
    result, _ = convert(source, tmp_path, data_format, "voc")
    assert content(result, without=("id",)) == content(source)
    assert {p.splits for p in result.images} == {()}


def test_ids_with_folders_and_blanks(tmp_path):
    folder = VOCFolder(tmp_path / "voc")
    ids = ("camera 1/a.b", "camera 2/a.b", "ü")
    for name in ids:
        (folder.annotations / name).parent.mkdir(exist_ok=True)
        (folder.images / name).parent.mkdir(exist_ok=True)
        folder.add(name)
    folder.split("train", *ids)
    source = read_annotated(folder.root)
    result, losses = convert(source, tmp_path, "coco", "yolo", "voc")
    assert losses == []
    assert [p.image_id for p in result.images] == sorted(ids)


def test_shapes_give_the_same_truths_in_every_format(tmp_path):
    draw_shapes(tmp_path / "voc", num_images=10, image_size=(64, 64))
    source = read_annotated(tmp_path / "voc")
    for name in ("coco", "yolo"):
        write_annotated(source, tmp_path / name, name)
    expected = read_dataset(tmp_path / "voc", "train", classes=source.class_names)
    for name in ("coco", "yolo"):
        found = read_dataset(tmp_path / name, "train")
        assert found.class_names == expected.class_names
        order = [found.image_ids.index(image_id) for image_id in expected.image_ids]
        for row, number in enumerate(order):
            own, other = found[number], expected[row]
            assert own.truth.labels.tolist() == other.truth.labels.tolist()
            assert own.truth.difficult.tolist() == other.truth.difficult.tolist()
            np.testing.assert_allclose(own.truth.boxes, other.truth.boxes, rtol=0, atol=1e-4)
            np.testing.assert_array_equal(own.image, other.image)


# ---- pycocotools agrees ------------------------------------------------------------------------


def average_precisions(file, detections):
    """COCO's 12 numbers for detections by file name and class name."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        images = {image["file_name"]: image["id"] for image in truth.loadImgs(truth.getImgIds())}
        classes = {c["name"]: c["id"] for c in truth.loadCats(truth.getCatIds())}
        rows = [
            {"image_id": images[name], "category_id": classes[label], "bbox": box, "score": score}
            for name, label, box, score in detections
        ]
        evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def test_pycocotools_gives_the_same_precision_before_and_after(tmp_path):
    plain = coco_set(tmp_path / "coco")
    generator = np.random.default_rng(2)
    names = {image["id"]: image["file_name"] for image in plain["images"]}
    classes = {category["id"]: category["name"] for category in plain["categories"]}
    detections = []
    for entry in plain["annotations"] * 2:
        box = (np.array(entry["bbox"]) + generator.normal(0, 1.5, 4)).clip(1).tolist()
        row = (names[entry["image_id"]], classes[entry["category_id"]], box)
        detections.append((*row, float(generator.uniform())))
    before = average_precisions(tmp_path / "coco/annotations/instances_train.json", detections)
    assert 0.1 < before[0] < 0.9
    convert(read_annotated(tmp_path / "coco"), tmp_path, "voc", "yolo", "coco")
    after = average_precisions(tmp_path / "2coco/annotations/instances_train.json", detections)
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-12)


# ---- what is not kept, and what is refused -----------------------------------------------------


def one_image(tmp_path, *objects, image_id="a", suffix=".png", names=("dog",), extras=None):
    path = tmp_path / f"source{suffix}"
    path.write_bytes(photo(SIZE))
    entry = AnnotatedImage(image_id, path, path, SIZE, ("train",), objects)
    return AnnotatedSet(tmp_path, "coco", names, (entry,), extras=extras or {})


def test_boxes_of_a_pixel_have_no_place_in_voc(tmp_path):
    thin = AnnotatedObject("annotation 1", "dog", (5, 5, 6, 9))
    good = AnnotatedObject("annotation 2", "dog", (5, 5, 6.5, 9))
    written = write_annotated(one_image(tmp_path, thin, good), tmp_path / "out", "voc")
    assert written.losses == ("1 object left out: boxes of a pixel's width or height at most",)
    assert written.num_objects == 1
    annotated = read_annotated(tmp_path / "out")
    assert [item.box for item in annotated.images[0].objects] == [good.box]
    assert annotated.faults == ()


@pytest.mark.parametrize("data_format", ["voc", "coco", "yolo"])
def test_names_never_lead_out_of_the_folder(tmp_path, data_format):
    source = one_image(tmp_path, image_id="../../etc/x")
    written = write_annotated(source, tmp_path / "out" / "set", data_format)
    assert "1 image renamed" in written.losses[0]
    assert [p.image_id for p in read_annotated(written.root, []).images] == ["etc/x"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "source.png"]


def test_images_that_no_reader_would_find_are_left_out(tmp_path):
    good, other = one_image(tmp_path), one_image(tmp_path, suffix=".tif", image_id="b")
    odd = one_image(tmp_path, image_id="a\nb")
    images = (*good.images, *other.images, *odd.images)
    source = AnnotatedSet(tmp_path, "coco", ("dog",), images)
    written = write_annotated(source, tmp_path / "out", "yolo")
    assert written.num_images == 1
    assert any("no list can hold" in loss for loss in written.losses)
    assert any("suffix" in loss for loss in written.losses)


def test_ids_that_differ_in_case_only(tmp_path):
    images = (*one_image(tmp_path).images, *one_image(tmp_path, image_id="A").images)
    source = AnnotatedSet(tmp_path, "coco", ("dog",), images)
    written = write_annotated(source, tmp_path / "out", "coco")
    assert "1 image renamed" in written.losses[0]
    assert [p.image_id for p in read_annotated(tmp_path / "out").images] == ["a", "A_2"]


def test_category_ids_in_another_order_than_the_classes(tmp_path):
    extras = {"categories": [{"id": 3, "name": "dog"}, {"id": 2, "name": "cat"}]}
    source = one_image(tmp_path, names=("dog", "cat"), extras=extras)
    written = write_annotated(source, tmp_path / "out", "coco")
    assert "categories" in written.losses[0]
    assert read_annotated(tmp_path / "out").class_names == ("dog", "cat")


def test_a_class_name_that_xml_cannot_hold(tmp_path):
    with pytest.raises(DetectError, match="XML cannot hold"):
        write_annotated(one_image(tmp_path, names=("bell\a",)), tmp_path / "out", "voc")


def test_a_split_with_the_name_of_a_key(tmp_path):
    root = random_voc(tmp_path / "voc")
    (root / "ImageSets/Main/train.txt").rename(root / "ImageSets/Main/names.txt")
    with pytest.raises(DetectError, match="'names'"):
        write_annotated(read_annotated(root), tmp_path / "out", "yolo")


def test_the_target_must_be_empty(tmp_path):
    source = one_image(tmp_path)
    (tmp_path / "out").mkdir()
    write_annotated(source, tmp_path / "out", "voc")
    with pytest.raises(DetectError, match="a folder that is not empty"):
        write_annotated(source, tmp_path / "out", "voc")
    (tmp_path / "file").touch()
    with pytest.raises(DetectError, match="found a file"):
        write_annotated(source, tmp_path / "file", "voc")


def test_a_full_disk_is_found_before_the_first_byte(tmp_path, monkeypatch):
    source = one_image(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 5000))
    with pytest.raises(DetectError, match="--link"):
        write_annotated(source, tmp_path / "out", "voc")
    assert not (tmp_path / "out").exists()
    write_annotated(source, tmp_path / "out", "voc", link=True)


def test_links(tmp_path, monkeypatch):
    source = one_image(tmp_path)
    file = source.images[0].image_path
    write_annotated(source, tmp_path / "hard", "voc", link=True)
    assert (tmp_path / "hard/JPEGImages/a.png").samefile(file)
    assert not (tmp_path / "hard/JPEGImages/a.png").is_symlink()

    def refuse(*_):
        raise OSError(18, "another disk")

    monkeypatch.setattr("os.link", refuse)
    write_annotated(source, tmp_path / "soft", "voc", link=True)
    assert (tmp_path / "soft/JPEGImages/a.png").is_symlink()
    assert read_annotated(tmp_path / "soft").faults == ()


def test_nothing_to_write(tmp_path):
    with pytest.raises(DetectError, match="found none"):
        write_annotated(AnnotatedSet(tmp_path, "voc", ("a",), ()), tmp_path / "out", "voc")
