import io
import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from detect.data.annotated import AnnotatedImage, AnnotatedObject, AnnotatedSet
from detect.data.checking import boxes as box_rules
from detect.data.checking import check_annotated
from detect.data.checking.class_names import check_class_names
from detect.data.checking.inspection import difference_hash, inspect_images
from detect.data.checking.similarity import MAX_HASH_DISTANCE, find_similar
from detect.data.checking.splits import are_apart
from detect.data.formats.voc import read_annotated_voc
from detect.data.images import ImageError
from detect.data.reading import read_annotated
from tests.data.checked_folder import CAT_BOX, SIZE, CheckedFolder, encoded, scene, sound_xml
from tests.data.voc_folder import annotation_xml, object_xml
from tests.data.written_sets import write_coco, write_yolo


@pytest.fixture
def folder(tmp_path):
    return CheckedFolder(tmp_path / "set")


def half_open(box):
    return (box[0] - 1, box[1] - 1, box[2], box[3])


def test_nothing_is_found_in_a_sound_set(folder):
    report = folder.check()
    assert report.findings == ()
    assert (report.num_images, report.num_empty_images, report.num_objects) == (16, 0, 32)
    assert report.class_names == ("cat", "dog")
    assert report.as_dict() == {
        "num_images": 16,
        "num_empty_images": 0,
        "num_objects": 32,
        "rules": {},
        "faults": [],
    }


# ---- what the reader found --------------------------------------------------------------------


def test_faults_of_the_reader_come_with_image_and_box(folder):
    folder.write(3, object_xml("dog", (150, 30, 199, 60)), object_xml("cat", (30, 40, 30, 50)))
    outside, flat = folder.findings()
    assert (outside.fault.rule, outside.fault.object) == ("box-outside-image", "object 3 (dog)")
    assert outside.images == (folder.image(3),)
    assert outside.boxes == ((149, 29, 199, 60),)
    assert flat.fault.rule == "zero-size-box"
    assert flat.boxes == ((29, 39, 30, 50),)
    report = folder.check()
    assert report.num_objects == 34
    assert (report.count("error"), report.count("warning")) == (2, 0)


def test_faults_of_a_whole_file_come_with_its_image(folder):
    (folder.annotations / "000002.xml").write_text("<broken")
    (finding,) = folder.findings()
    assert finding.fault.rule == "malformed-xml"
    assert (finding.images, finding.boxes) == ((folder.image(2),), ())
    assert folder.check().num_images == 16


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_images_that_cannot_be_decoded(folder, damage):
    data = folder.image(5).read_bytes()
    damaged = {"truncated": data[: len(data) // 2], "empty": b"", "text": b"not an image"}[damage]
    folder.image(5).write_bytes(damaged)
    finding = folder.only("unreadable-image", "error")
    assert finding.fault.file == str(folder.image(5))


# ---- the same image twice -------------------------------------------------------------------


def test_the_same_file_twice_in_one_split(folder):
    folder.image(1).write_bytes(folder.image(0).read_bytes())
    finding = folder.only("identical-images")
    assert finding.images == (folder.image(1), folder.image(0))
    assert "other objects" not in finding.fault.value


def test_the_same_file_twice_with_other_objects(folder):
    folder.write(1, object_xml("dog", (31, 91, 70, 110)), image=folder.image(0).read_bytes())
    assert "with other objects" in folder.only("identical-images").fault.value


def test_the_same_file_in_two_splits_is_an_error(folder):
    folder.image(13).write_bytes(folder.image(2).read_bytes())
    finding = folder.only("identical-images-across-splits", "error")
    assert "which is in train, this one in test" in finding.fault.value


def test_equal_pixels_in_other_bytes(folder):
    image = scene(0)
    for number in (0, 1):
        folder.image(number).unlink()
        folder.write(number, suffix=".png")
    plain, other = (
        cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, level])[1].tobytes()
        for level in (1, 9)
    )
    assert plain != other
    folder.image(0, ".png").write_bytes(plain)
    folder.image(1, ".png").write_bytes(other)
    assert folder.only("identical-images").images[0] == folder.image(1, ".png")


def test_images_that_differ_in_color_only_are_not_identical(folder):
    gray = np.full((*SIZE, 3), 90, np.uint8)
    reddish = gray.copy()
    reddish[..., 0] += 2
    for number, image in ((0, gray), (1, reddish)):
        folder.image(number).unlink()
        folder.add(f"{number:06}", sound_xml(), encoded(image, ".png"), ".png")
    assert folder.findings() == ()  # blank pages are not alike either


def test_every_copy_points_at_the_first(folder):
    for number in (1, 2, 3):
        folder.image(number).write_bytes(folder.image(0).read_bytes())
    assert [f.images for f in folder.findings()] == [
        (folder.image(number), folder.image(0)) for number in (1, 2, 3)
    ]


# ---- images that look alike -----------------------------------------------------------------


@pytest.mark.parametrize("change", ["quality", "size", "brightness"])
def test_an_image_in_another_quality_or_size(folder, change):
    image = scene(0)
    if change == "size":
        image = cv2.resize(image, (240, 180), interpolation=cv2.INTER_AREA)
    if change == "brightness":
        image = (image * 0.7 + 20).astype(np.uint8)
    data = encoded(image, quality=40 if change == "quality" else 95)
    folder.add("000001", sound_xml(size=image.shape[:2]), data)
    finding = folder.only("similar-images")
    assert finding.images == (folder.image(1), folder.image(0))


def test_an_image_turned_by_exif_looks_like_the_upright_one(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(np.rot90(scene(0))).save(buffer, "JPEG", exif=exif)
    folder.write(1, image=buffer.getvalue())
    assert "similar-images" in {finding.fault.rule for finding in folder.findings()}


def test_images_that_look_alike_in_two_splits(folder):
    folder.write(9, image=encoded(scene(0), quality=60))
    finding = folder.only("similar-images-across-splits")
    assert "which is in train, this one in val" in finding.fault.value


def naive_pairs(hashes, thumbnails):
    """All pairs (earlier, later), one by one."""
    flat = thumbnails.reshape(len(thumbnails), -1).astype(float)
    correlations = np.corrcoef(flat)
    return {
        (i, j)
        for j in range(len(hashes))
        for i in range(j)
        if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= MAX_HASH_DISTANCE
        and correlations[i, j] >= 0.98
    }


@pytest.mark.parametrize("num_bits", [1, 6, 7])
def test_similar_images_are_those_of_the_naive_search(num_bits):
    rng = np.random.default_rng(num_bits)
    hashes = rng.integers(0, 2**64, 600, dtype=np.uint64)
    thumbnails = rng.integers(0, 256, (600, 16, 16), dtype=np.uint8)
    for later in range(300, 600):  # a copy of an earlier one, with some bits turned
        bits = rng.choice(64, num_bits, replace=False)
        hashes[later] = hashes[later - 300] ^ sum(np.uint64(1 << int(bit)) for bit in bits)
        if later % 3:
            thumbnails[later] = thumbnails[later - 300]
    found = {(i, j) for j, earlier in find_similar(hashes, thumbnails).items() for i in earlier}
    assert found == naive_pairs(hashes, thumbnails)
    assert len(found) == (0 if num_bits > MAX_HASH_DISTANCE else 200)


def test_equal_hashes_point_at_the_first_that_looks_alike():
    rng = np.random.default_rng(0)
    looks = rng.integers(0, 256, (2, 16, 16), dtype=np.uint8)
    thumbnails = looks[[0, 1, 0, 1, 0]]
    found = find_similar(np.full(5, 77, dtype=np.uint64), thumbnails)
    assert found == {2: [0], 3: [1], 4: [0]}


def test_nothing_to_compare():
    assert find_similar(np.zeros(0, np.uint64), np.zeros((0, 16, 16), np.uint8)) == {}


@pytest.mark.slow
def test_a_hundred_thousand_images_are_compared_in_seconds():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 100_000, dtype=np.uint64)
    thumbnails = rng.integers(0, 256, (100_000, 16, 16), dtype=np.uint8)
    hashes[:5000] &= np.uint64(0xFFFFFFFFFF << 20)  # a crowded band
    hashes[70_000:70_010] = hashes[20_000:20_010] ^ np.uint64(5)
    thumbnails[70_000:70_010] = thumbnails[20_000:20_010]
    start = time.perf_counter()
    found = find_similar(hashes, thumbnails)
    assert found == {70_000 + n: [20_000 + n] for n in range(10)}
    assert time.perf_counter() - start < 60  # all pairs would take many minutes


def test_difference_hash_of_a_ramp():
    ramp = np.tile(np.arange(0, 180, 10, dtype=np.uint8), (16, 1))
    assert difference_hash(ramp) == 2**64 - 1
    assert difference_hash(np.ascontiguousarray(ramp[:, ::-1])) == 0


# ---- how images are stored ------------------------------------------------------------------


def test_a_suffix_that_the_content_belies(folder):
    folder.write(4, image=encoded(scene(4), ".png"))
    finding = folder.only("wrong-suffix")
    assert "the file is a PNG, its name says JPEG" in finding.fault.value


@pytest.mark.parametrize(
    ("mode", "word"), [("L", "grayscale"), ("P", "palette"), ("RGBA", "alpha"), ("CMYK", "CMYK")]
)
def test_a_color_mode_that_is_not_the_usual(folder, mode, word):
    suffix = ".jpg" if mode in ("L", "CMYK") else ".png"
    buffer = io.BytesIO()
    Image.fromarray(scene(4)).convert(mode).save(buffer, "JPEG" if suffix == ".jpg" else "PNG")
    folder.image(4).unlink()
    folder.write(4, image=buffer.getvalue(), suffix=suffix)
    assert f"stored as {word}, 15 of 16 as color" in folder.only("mixed-color-modes").fault.value


def test_sixteen_bits(folder):
    folder.image(4).unlink()
    data = cv2.imencode(".png", scene(4).astype(np.uint16) * 256)[1].tobytes()
    folder.write(4, image=data, suffix=".png")
    assert "stored as 16 bit" in folder.only("mixed-color-modes").fault.value


def test_a_set_of_gray_images_is_of_one_mode(folder):
    for number in range(16):
        folder.write(number, image=encoded(scene(number)[..., 0]))
    assert folder.findings() == ()


def turned(image, orientation):
    """A JPEG whose pixels lie as they are, with EXIF's word that they are to be turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def test_boxes_fit_the_turned_image_only(folder):
    # stored 120 wide and 160 high; the cat's box ends at x = 140
    folder.write(4, image=turned(scene(4, SIZE[::-1]), 6))
    finding = folder.only("rotated-images")
    assert "turns 1 image," in finding.fault.value


@pytest.mark.parametrize("orientation", [3, 6])
def test_boxes_fit_the_image_as_stored_too(folder, orientation):
    size = SIZE if orientation == 3 else SIZE[::-1]
    xml = annotation_xml(object_xml("dog", (11, 21, 60, 80)), size=SIZE)
    folder.add("000004", xml, turned(scene(4, size), orientation))
    finding = folder.only("unclear-rotation")
    assert f"orientation {orientation}" in finding.fault.value
    assert finding.boxes == ((10, 20, 60, 80),)


# ---- boxes ------------------------------------------------------------------------------------


def test_nearly_the_same_box_of_one_class(folder):
    box = (CAT_BOX[0], CAT_BOX[1], CAT_BOX[2] + 1, CAT_BOX[3])
    folder.write(6, object_xml("cat", box))
    finding = folder.only("near-duplicate-object")
    assert (finding.fault.object, finding.fault.file) == (
        "object 3 (cat)",
        str(folder.annotation(6)),
    )
    assert "object 2 (cat): IoU 0.984" in finding.fault.value
    assert finding.boxes == (half_open(box), half_open(CAT_BOX))


@pytest.mark.parametrize("shift", [0, 1])
def test_one_box_of_two_classes(folder, shift):
    box = (CAT_BOX[0], CAT_BOX[1], CAT_BOX[2], CAT_BOX[3] + shift)
    folder.write(6, object_xml("dog", box))
    assert "object 2 (cat) with another class" in folder.only("two-classes-one-box").fault.value


def test_the_very_same_box_is_said_once(folder):
    folder.write(6, object_xml("cat", CAT_BOX))
    folder.only("duplicate-object")


def test_boxes_that_overlap_less_and_crowds_are_left_alone(folder):
    box = (CAT_BOX[0] + 4, CAT_BOX[1], CAT_BOX[2], CAT_BOX[3])
    crowd = object_xml("dog", CAT_BOX, "<crowd>1</crowd>")
    folder.write(6, object_xml("cat", box), crowd)
    assert folder.findings() == ()


def one_image(*objects, size=(480, 640)):
    """A set of one image that exists on paper only."""
    numbered = [
        AnnotatedObject(f"object {number} ({name})", name, box)
        for number, (name, box) in enumerate(objects, start=1)
    ]
    image = AnnotatedImage("a", Path("a.jpg"), Path("a.xml"), size, ("train",), tuple(numbered))
    names = tuple(sorted({item.name for item in numbered}))
    return AnnotatedSet(Path("set"), "yolo", names, (image,))


def test_many_boxes_are_compared_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 400, (60, 2))
    placed = [("cat", (x, y, x + 40, y + 40)) for x, y in corners.tolist()]
    annotated = one_image(*placed, *placed[10:20])
    monkeypatch.setattr(box_rules, "_ROWS_AT_ONCE", 7)
    found = list(box_rules.check_boxes(annotated))
    assert [f.fault.object for f in found] == [f"object {61 + n} (cat)" for n in range(10)]
    assert all(f"object {11 + n} (cat)" in f.fault.value for n, f in enumerate(found))


@pytest.mark.parametrize(
    ("box", "size", "rule"),
    [
        ((10, 10, 12.9, 40), (480, 640), "tiny-box"),
        ((10, 10, 13, 40), (480, 640), None),
        ((10, 10, 15, 60), (3000, 4000), "tiny-box"),  # 0.8 pixels at 640
        ((10, 10, 17, 60), (3000, 4000), None),
        ((0, 0, 640, 460), (480, 640), "huge-box"),
        ((0, 0, 640, 450), (480, 640), None),
        ((10, 10, 110, 15), (480, 640), None),
        ((10, 10, 111, 15), (480, 640), "odd-aspect-ratio"),
        ((10, 10, 15, 111), (480, 640), "odd-aspect-ratio"),
    ],
)
def test_odd_sizes(box, size, rule):
    found = list(box_rules.check_boxes(one_image(("dog", box), size=size)))
    assert [finding.fault.rule for finding in found] == ([] if rule is None else [rule])
    assert all(f.boxes == (box,) and f.fault.severity == "warning" for f in found)


def shaped(num, ratio, spread, seed=0):
    """Boxes around 1:ratio in the middle of the image, far from each other in size."""
    ratios = ratio * np.exp(spread * np.random.default_rng(seed).standard_normal(num))
    return [
        ("pen", (100 + n, 100 + 3 * n, 100 + n + 30 * r, 130 + 3 * n)) for n, r in enumerate(ratios)
    ]


def test_a_shape_far_from_that_of_its_class():
    odd = ("pen", (300, 200, 310, 260))
    annotated = one_image(*shaped(40, 1.0, 0.1), odd)
    (found,) = box_rules.check_boxes(annotated)
    assert (found.fault.rule, found.boxes) == ("odd-aspect-ratio", (odd[1],))
    assert "0.17 times as wide as high" in found.fault.value


@pytest.mark.parametrize(
    "objects",
    [
        [*shaped(40, 1.0, 0.4), ("pen", (300, 200, 310, 260))],  # a class of many shapes
        [*shaped(40, 1.0, 0.01), ("pen", (300, 200, 320, 270))],  # three times as long
        [*shaped(20, 1.0, 0.1), ("pen", (300, 200, 310, 260))],  # too few to tell
        [*shaped(40, 1.0, 0.1), ("cup", (300, 200, 310, 260))],  # another class
        [*shaped(40, 1.0, 0.1), ("pen", (630, 200, 640, 260))],  # cut off by the edge
    ],
)
def test_shapes_that_are_left_alone(objects):
    assert list(box_rules.check_boxes(one_image(*objects))) == []


def zero_based(folder, *boxes):
    for number, box in enumerate(boxes):
        folder.add(f"{number:06}", annotation_xml(object_xml("dog", box), size=SIZE),
                   encoded(scene(number)))  # fmt: skip
    return {finding.fault.rule for finding in folder.findings()}


def test_a_set_that_counts_from_zero(folder):
    boxes = [(0, 5, 60, 60), (50, 10, 159, 60), (50, 10, 159, 70), (20, 60, 50, 119)]
    assert zero_based(folder, *boxes) == {"zero-based-box", "zero-based-set"}


@pytest.mark.parametrize(
    "boxes",
    [
        # one box on the edge: it counts from 1
        [(0, 5, 60, 60), (50, 10, 159, 60), (50, 10, 159, 70), (20, 60, 50, 119), (9, 9, 160, 90)],
        # too little to tell
        [(0, 5, 60, 60), (50, 10, 159, 60)],
    ],
)
def test_single_slips_to_zero(folder, boxes):
    assert zero_based(folder, *boxes) == {"zero-based-box"}


def test_a_set_that_counts_from_one(folder):
    boxes = [(1, 5, 60, 60), (50, 10, 159, 60), (50, 10, 159, 70), (20, 60, 50, 119)]
    assert zero_based(folder, *boxes) == set()


# ---- names of classes -------------------------------------------------------------------------


def similar_names(counts):
    objects = [(name, (1.0 * n, 1, 30 + n, 40)) for name, num in counts.items() for n in range(num)]
    return [f.fault.value for f in check_class_names(one_image(*objects))]


@pytest.mark.parametrize(
    ("first", "second", "difference"),
    [
        ("Dog", "dog", "upper and lower case"),
        ("traffic light", "traffic_light", "blanks, hyphens"),
        ("traffic-light", "TrafficLight", "blanks, hyphens"),
        ("dog", "dogs", "singular and plural"),
        ("bus", "buses", "singular and plural"),
        ("box", "boxes", "singular and plural"),
        ("berry", "berries", "singular and plural"),
    ],
)
def test_names_that_look_like_one(first, second, difference):
    (value,) = similar_names({first: 5, second: 5})
    assert repr(first) in value
    assert repr(second) in value
    assert f"differ in {difference}" in value


@pytest.mark.parametrize("slip", ["perso", "persoon", "persom", "pesron", "erson"])
def test_names_one_letter_apart(slip):
    (value,) = similar_names({"person": 100, slip: 2})
    assert f"{slip!r} (count 2) and 'person' (count 100)" in value


@pytest.mark.parametrize(
    "counts",
    [
        {"house": 50, "horse": 50},  # both are frequent
        {"cat": 100, "car": 1},  # short
        {"class1": 100, "class2": 1},  # numbered
        {"person": 100, "parrot": 1},
        {"glass": 100, "gas": 1},
        {"bus": 10, "bu": 10},
    ],
)
def test_names_that_are_different_words(counts):
    assert similar_names(counts) == []


def test_a_name_that_differs_in_case_is_said_once(folder):
    folder.write(6, object_xml("Dog", (31, 91, 70, 110)))
    rules = [finding.fault.rule for finding in folder.findings()]
    assert rules.count("similar-classes") == 1


def test_a_thousand_names_are_compared_quickly():
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    names = ["".join(rng.choice(letters, 12)) for _ in range(2000)]
    start = time.perf_counter()
    similar_names(dict.fromkeys(names, 1))
    assert time.perf_counter() - start < 10  # milliseconds; all pairs would be two million


# ---- splits -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("train", "test", True),
        ("train", "val", True),
        ("val", "test", True),
        ("trainval", "test", True),
        ("train2017", "val2017", True),
        ("Train", "TEST", True),
        ("train_fold1", "val_fold1", True),
        ("train", "validation", True),
        ("train", "trainval", False),
        ("trainval", "val", False),
        ("train", "all", False),
        ("test", "all", False),
        ("train", "train_small", False),
        ("train_fold1", "val_fold2", False),  # of two rounds of a cross-validation
        ("training", "train", False),
        ("contest", "train", False),
        ("left", "right", False),
    ],
)
def test_splits_that_must_not_share_images(first, second, expected):
    assert are_apart(first, second) is are_apart(second, first) is expected


def test_an_image_in_training_and_test(folder):
    folder.split("test", "000003", *(f"{number:06}" for number in range(12, 16)))
    findings = folder.findings()
    assert [finding.fault.rule for finding in findings] == ["overlapping-splits"] * 2
    assert "000003 is listed in test and in train" in findings[0].fault.value
    assert {finding.fault.severity for finding in findings} == {"error"}


def test_a_class_that_a_split_lacks(folder):
    for number in range(12, 16):
        folder.add(f"{number:06}", annotation_xml(object_xml("dog", (11, 21, 60, 80)), size=SIZE),
                   encoded(scene(number)))  # fmt: skip
    finding = folder.only("class-missing-from-split")
    assert "test has no object of cat" in finding.fault.value
    assert finding.fault.file == str(folder.splits / "test.txt")


def test_a_class_with_few_objects(folder):
    for number in range(16):
        extra = [object_xml("bird", (31, 91, 70, 110))] if number in (0, 8, 12) else []
        folder.write(number, *extra)
    assert folder.only("rare-class").fault.value == "class 'bird' has 3 objects"


def test_a_listed_class_without_objects(folder):
    (finding,) = folder.findings(classes=["cat", "dog", "zebra"])
    assert finding.fault.value == "class 'zebra' has 0 objects"


def test_images_without_objects_are_counted(folder):
    folder.add("000000", annotation_xml(size=SIZE), encoded(scene(0)))
    report = folder.check()
    assert (report.num_empty_images, report.findings) == (1, ())
    folder.add("000001", annotation_xml(size=SIZE), encoded(scene(1)))
    assert "2 of 16 images without an object" in folder.only("many-empty-images").fault.value


# ---- files that nobody lists ------------------------------------------------------------------


def test_an_annotation_that_nobody_lists(folder):
    folder.add("spare", sound_xml(), encoded(scene(99)))
    finding = folder.only("unlisted-annotation")
    assert finding.fault.file == str(folder.annotations / "spare.xml")
    assert folder.findings(["train", "val", "test"]) == ()  # some splits do not tell


def test_an_image_that_nobody_lists(folder):
    (folder.images / "spare.png").write_bytes(encoded(scene(99), ".png"))
    assert folder.only("unlisted-image").images == (folder.images / "spare.png",)


def test_what_another_task_lists_is_listed(folder):
    folder.add("spare", sound_xml(), encoded(scene(99)))
    (folder.root / "ImageSets" / "Segmentation").mkdir()
    (folder.root / "ImageSets" / "Segmentation" / "train.txt").write_text("spare\n")
    assert folder.findings() == ()


def test_without_splits_every_annotation_belongs_to_the_set(folder):
    for path in folder.splits.iterdir():
        path.unlink()
    assert folder.findings() == ()


# ---- one look at every image ----------------------------------------------------------------


def test_every_image_is_looked_at_once(folder):
    calls = []
    folder.check(progress=lambda *call: calls.append(call))
    assert calls == [(done, 16) for done in range(1, 17)]


def test_inspection_keeps_errors_apart(tmp_path):
    good, bad = tmp_path / "good.jpg", tmp_path / "bad.jpg"
    good.write_bytes(encoded(scene(0)))
    bad.write_bytes(b"\xff\xd8\xff")
    inspected = inspect_images([good, bad, good])
    assert list(inspected) == [good, bad]
    assert inspected[good].header.size == SIZE
    assert isinstance(inspected[bad], ImageError)


def test_a_set_without_images_is_checked(tmp_path):
    annotated = AnnotatedSet(tmp_path, "yolo", (), ())
    assert check_annotated(annotated).findings == ()


def test_real_images_have_the_faults_they_are_known_for(shared):
    root = shared / "data" / "bccd"
    if not root.is_dir():
        pytest.skip(f"there is no {root}")
    report = check_annotated(read_annotated_voc(root))
    rules = {rule: len(findings) for rule, findings in report.by_rule().items()}
    assert rules == {
        "zero-size-box": 2,
        "similar-images-across-splits": 1,  # one field of view in two focuses
    }


# ---- the other formats ------------------------------------------------------------------------


def test_a_set_in_yolos_format(tmp_path):
    write_yolo(tmp_path, [])
    assert check_annotated(read_annotated(tmp_path)).findings == ()
    write_yolo(tmp_path, ["0 0.5 0.9 0.01 0.1", "1 0.25 0.5 0.3 0.4", "0 1.5 0.5 0.1 0.1"])
    (tmp_path / "images/val/000001.jpg").write_bytes(encoded(scene(0)))
    report = check_annotated(read_annotated(tmp_path))
    rules = {finding.fault.rule for finding in report.findings}
    assert rules == {
        "tiny-box",
        "two-classes-one-box",
        "identical-images-across-splits",
        "box-outside-image",
    }
    assert all(finding.images for finding in report.findings)


def test_one_name_with_two_suffixes(tmp_path):
    write_yolo(tmp_path)
    (tmp_path / "images/train/000000.png").write_bytes(encoded(scene(50), ".png"))
    (finding,) = check_annotated(read_annotated(tmp_path)).findings
    assert finding.fault.rule == "several-images"
    assert {path.suffix for path in finding.images} == {".jpg", ".png"}


def test_one_name_with_two_suffixes_in_voc(folder):
    (folder.images / "000003.png").write_bytes(encoded(scene(50), ".png"))
    assert "000003.jpg and 000003.png" in folder.only("several-images").fault.value


def test_a_set_in_cocos_format(tmp_path):
    contents, categories = write_coco(tmp_path)
    assert check_annotated(read_annotated(tmp_path)).findings == ()
    train = contents["train"]
    train["annotations"][0]["bbox"] = [10, 20, 2, 30]
    train["annotations"].append({**train["annotations"][1], "id": 99, "category_id": 1})
    train["images"][2]["height"] = "high"
    file = tmp_path / "annotations" / "instances_train.json"
    file.write_text(json.dumps({**train, "categories": categories}))
    (tmp_path / "images" / "spare.jpg").write_bytes(encoded(scene(77)))
    found = {f.fault.rule: f for f in check_annotated(read_annotated(tmp_path)).findings}
    assert set(found) == {"tiny-box", "two-classes-one-box", "bad-size", "unlisted-image"}
    assert found["tiny-box"].images == (tmp_path / "images" / "000000.jpg",)
    assert found["tiny-box"].boxes == ((10, 20, 12, 50),)
    assert found["unlisted-image"].images == (tmp_path / "images" / "spare.jpg",)
