import io
import pickle
import re
import time

import numpy as np
import pytest
import torch
from PIL import Image

from detect.data import (
    VOC_CLASSES,
    DataFaults,
    DetectionDataset,
    Fault,
    Source,
)
from detect.data.formats.voc import split_file
from detect.errors import DetectError
from detect.structures import GroundTruth, ImageMeta
from tests.data.voc_folder import (
    GOOD_BOX,
    VOCFolder,
    annotation_xml,
    check_voc,
    object_xml,
    photo,
    read_voc,
)


@pytest.fixture
def folder(tmp_path):
    return VOCFolder(tmp_path / "set")


def with_one(folder, xml=None, **image_options):
    """A split `train` whose only image is 000001."""
    folder.add("000001", xml, **image_options)
    folder.split("train", "000001")
    return [Source(folder.root, "train")]


def faults_of(folder, classes=("cat", "dog")):
    """The faults of the split `train` as (rule, severity) with the records."""
    return read_report(folder, classes).faults


def read_report(folder, classes=("cat", "dog")):
    return check_voc(folder.root, ["train"], classes)


def only_fault(folder, rule, severity="error", classes=("cat", "dog")):
    """The one fault there is; reading stops at it if it is an error, and skips it on demand."""
    (fault,) = faults_of(folder, classes)
    assert (fault.rule, fault.severity) == (rule, severity)
    assert fault.remedy
    source = Source(folder.root, "train")
    if severity == "error":
        with pytest.raises(DataFaults) as caught:
            read_voc([source], classes)
        assert caught.value.faults == (fault,)
        assert str(fault) in str(caught.value)
    else:
        assert read_voc([source], classes).faults == (fault,)
    return fault


# ---- what is legal ----------------------------------------------------------------------------


def test_boxes_become_half_open_and_start_at_zero(folder):
    xml = annotation_xml(
        object_xml("dog", (1, 1, 60, 40)),
        object_xml("cat", (2.5, 3, 4, 30.25), "<difficult>1</difficult>"),
    )
    dataset = read_voc(with_one(folder, xml), ["cat", "dog"])
    sample = dataset[0]
    expected = torch.tensor([[0, 0, 60, 40], [1.5, 2, 4, 30.25]])
    torch.testing.assert_close(sample.truth.boxes, expected, rtol=0, atol=0)
    assert sample.truth.labels.tolist() == [1, 0]
    assert sample.truth.difficult.tolist() == [False, True]
    assert sample.image.shape == (40, 60, 3)
    assert sample.meta.original_size == sample.meta.input_size == (40, 60)
    assert sample.meta.path == folder.images / "000001.jpg"
    assert dataset.image_ids == ("000001",)
    assert dataset.faults == ()


def test_image_without_objects(folder):
    folder.add("empty", annotation_xml())
    folder.add("full")
    folder.split("train", "empty", "full")
    dataset = read_voc([Source(folder.root, "train")], "auto")
    assert [len(truth) for truth in dataset.truths] == [0, 1]
    assert len(dataset[0].truth) == 0
    assert dataset.class_counts() == {"dog": 1}


def test_parts_are_not_taken_for_the_object(folder):
    part = (
        "<part><name>head</name><difficult>1</difficult><bndbox><xmin>7</xmin><ymin>7</ymin>"
        "<xmax>9</xmax><ymax>9</ymax></bndbox></part>"
    )
    xml = annotation_xml(object_xml("dog", extra=part))
    dataset = read_voc(with_one(folder, xml), "auto")
    assert dataset.class_names == ("dog",)
    assert dataset.truths[0].boxes.tolist() == [[1, 2, 20, 30]]
    assert dataset.truths[0].difficult.tolist() == [False]


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        ("", "utf-8-sig"),
        ('<?xml version="1.0" encoding="ISO-8859-1"?>', "latin-1"),
        ('<?xml version="1.0" encoding="utf-16"?>', "utf-16"),
        ("\n", "utf-8"),
    ],
)
def test_encodings_of_annotations(folder, head, encoding):
    xml = annotation_xml(object_xml("Löwe"), head=head).replace("\n", "\r\n").encode(encoding)
    assert read_voc(with_one(folder, xml), "auto").class_names == ("Löwe",)


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf000001\r\n000002\r\n",
        b"  000001 \n\n000002\t\n\n\n",
        "000001\n000002\n".encode("utf-16"),
        b"000001\r000002",
    ],
)
def test_forms_of_split_files(folder, data):
    folder.add("000001")
    folder.add("000002")
    (folder.splits / "train.txt").write_bytes(data)
    dataset = read_voc([Source(folder.root, "train")], "auto")
    assert dataset.image_ids == ("000001", "000002")


def test_split_for_one_class_leaves_out_images_without_it(folder):
    for name in ("000001", "000002", "000003"):
        folder.add(name)
    folder.split("dog_train", "000001 -1", "000002  1", "000003  0")
    dataset = read_voc([Source(folder.root, "dog_train")], "auto")
    assert dataset.image_ids == ("000002", "000003")


def test_ids_with_blanks_subfolders_and_dots(folder):
    (folder.annotations / "camera").mkdir()
    (folder.images / "camera").mkdir()
    ids = ("my dog 1", "camera/7", "v1.2")
    for name in ids:
        folder.add(name)
    folder.split("train", *ids)
    assert read_voc([Source(folder.root, "train")], "auto").image_ids == ids


@pytest.mark.parametrize("suffix", [".jpg", ".JPG", ".jpeg", ".png", ".PNG", ".bmp", ".WebP"])
def test_images_are_found_whatever_their_suffix(folder, suffix):
    dataset = read_voc(with_one(folder, suffix=suffix), "auto")
    assert dataset.metas[0].path.name == f"000001{suffix}"


def test_filename_in_the_annotation_is_not_trusted(folder):
    xml = annotation_xml("<filename>another.png</filename>", object_xml())
    assert len(read_voc(with_one(folder, xml), "auto")) == 1


def rotated_jpeg():
    """40 × 60 as displayed, 60 wide; stored lying on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((60, 40, 3), np.uint8)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def test_size_counts_as_displayed(folder):
    dataset = read_voc(with_one(folder, image=rotated_jpeg()), "auto")
    assert dataset.metas[0].original_size == (40, 60)
    assert dataset[0].image.shape == (40, 60, 3)


# ---- classes ----------------------------------------------------------------------------------


def test_automatic_classes_are_sorted_and_counted(folder):
    folder.add("000001", annotation_xml(object_xml("dog"), object_xml("cat")))
    folder.add("000002", annotation_xml(object_xml("dog"), object_xml("ant")))
    folder.add("000003", annotation_xml(object_xml("zebra")))
    folder.split("train", "000001", "000002")
    dataset = read_voc([Source(folder.root, "train")], "auto")
    assert dataset.class_names == ("ant", "cat", "dog")
    assert dataset.class_counts() == {"ant": 1, "cat": 1, "dog": 2}


def test_voc_classes(folder):
    dataset = read_voc(with_one(folder), "voc")
    assert dataset.class_names == VOC_CLASSES
    assert len(VOC_CLASSES) == 20
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)
    assert dataset.truths[0].labels.tolist() == [VOC_CLASSES.index("dog")]


def test_listed_classes_keep_their_order(folder):
    dataset = read_voc(with_one(folder), ["zebra", "dog"])
    assert dataset.class_names == ("zebra", "dog")
    assert dataset.class_counts() == {"zebra": 0, "dog": 1}


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ("dog", r"expected voc, auto or a list of names, found 'dog'.*\[dog\]"),
        ([], "expected names"),
        (["dog", " "], "expected names"),
        (["dog", "cat", "dog"], "'dog' 2 times"),
    ],
)
def test_class_lists_that_make_no_sense(folder, classes, expected):
    with pytest.raises(DetectError, match=expected):
        read_voc(with_one(folder), classes)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("dgo", "did you mean 'dog'?"),
        (" dog\n", "remove the blanks around the name: 'dog'"),
        ("Dog", "upper and lower case count: write 'dog'"),
        ("xylophone", "there are: cat, dog"),
    ],
)
def test_unknown_class(folder, name, remedy):
    with_one(folder, annotation_xml(object_xml("cat"), object_xml(name)))
    fault = only_fault(folder, "unknown-class")
    assert fault.file == str(folder.annotations / "000001.xml")
    assert fault.object == f"object 2 ({name.strip()})"
    assert repr(name) in fault.value
    assert remedy in fault.remedy


def test_automatic_classes_do_not_make_a_class_of_blanks(folder):
    with_one(folder, annotation_xml(object_xml("dog"), object_xml("dog ", (5, 5, 9, 9))))
    fault = only_fault(folder, "unknown-class", classes="auto")
    assert "blanks" in fault.remedy


def test_classes_that_differ_in_case_only(folder):
    boxes = [(1, 1, 5, 5), (2, 2, 5, 5)]
    dogs = [object_xml("dog", box) for box in boxes]
    with_one(folder, annotation_xml(*dogs, object_xml("Dog"), object_xml("cat")))
    fault = only_fault(folder, "similar-classes", "warning", classes="auto")
    assert fault.value == "'Dog' (count 1) and 'dog' (count 2) are different classes"
    assert fault.object == "object 3 (Dog)"


def test_automatic_classes_need_an_object(folder):
    with pytest.raises(DetectError, match="found no object"):
        read_voc(with_one(folder, annotation_xml()), "auto")


# ---- faults of objects ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "rule", "value"),
    [
        ((12, 3, 12, 30), "zero-size-box", "xmin = xmax = 12"),
        ((2, 30, 20, 30), "zero-size-box", "ymin = ymax = 30"),
        ((20, 3, 2, 30), "inverted-box", "xmin = 20 is greater than xmax = 2"),
        ((2, 30.5, 20, 3), "inverted-box", "ymin = 30.5 is greater than ymax = 3"),
        ((2, 3, 61, 30), "box-outside-image", "xmax = 61, ymax = 30 in an image of 60 wide"),
        ((2, 3, 20, 40.5), "box-outside-image", "ymax = 40.5"),
        ((-1, 3, 20, 30), "box-outside-image", "xmin = -1"),
        ((2, -0.5, 20, 30), "box-outside-image", "ymin = -0.5"),
        (("nan", 3, 20, 30), "not-a-number", "xmin is 'nan'"),
        ((2, "-inf", 20, 30), "not-a-number", "ymin is '-inf'"),
        ((2, 3, "1e999", 30), "not-a-number", "xmax is '1e999'"),
        ((2, 3, 20, "3O"), "not-a-number", "ymax is '3O'"),
        ((2, 3, "1_9", 30), "not-a-number", "xmax is '1_9'"),
        ((2, 3, "19,5", 30), "not-a-number", "xmax is '19,5'"),
        ((2, 3, "", 30), "missing-field", "<xmax> is empty"),
        ((2, None, 20, 30), "missing-field", "there is no <ymin> in <bndbox>"),
        (None, "missing-field", "there is no <bndbox>"),
        ((0, 0, "1e-60", 30), "zero-size-box", "single precision"),
    ],
)
def test_faulty_boxes(folder, box, rule, value):
    with_one(folder, annotation_xml(object_xml("cat", (5, 5, 9, 9)), object_xml("dog", box)))
    fault = only_fault(folder, rule)
    assert fault.file == str(folder.annotations / "000001.xml")
    assert fault.object == "object 2 (dog)"
    assert value in fault.value
    dataset = read_voc([Source(folder.root, "train")], ["cat", "dog"], on_error="skip")
    assert dataset.truths[0].boxes.tolist() == [[4, 4, 9, 9]]
    assert (dataset.num_skipped_images, dataset.num_skipped_objects) == (0, 1)
    assert dataset.faults == (fault,)


@pytest.mark.parametrize(
    ("box", "expected"), [((0, 3, 20, 30), [0, 2, 20, 30]), ((2, 0.5, 20, 30), [1, 0, 20, 30])]
)
def test_zero_based_boxes_are_cut_off_with_a_warning(folder, box, expected):
    sources = with_one(folder, annotation_xml(object_xml("dog", box)))
    fault = only_fault(folder, "zero-based-box", "warning")
    assert "where VOC counts from 1" in fault.value
    assert read_voc(sources, "auto").truths[0].boxes.tolist() == [expected]


@pytest.mark.parametrize(
    ("item", "rule", "value", "title"),
    [
        (object_xml(None), "missing-field", "there is no <name>", "object 1"),
        (object_xml("  "), "missing-field", "<name> is empty", "object 1"),
        (object_xml(extra="<name>cat</name>"), "repeated-field", "2 <name>", "object 1"),
        (
            object_xml(extra="<bndbox><xmin>1</xmin></bndbox>"),
            "repeated-field",
            "2 <bndbox>",
            "object 1 (dog)",
        ),
        (
            object_xml(extra="<difficult>yes</difficult>"),
            "bad-difficult",
            "'yes'",
            "object 1 (dog)",
        ),
        (object_xml(extra="<difficult>2</difficult>"), "bad-difficult", "'2'", "object 1 (dog)"),
        (object_xml(extra="<difficult/>"), "bad-difficult", "''", "object 1 (dog)"),
    ],
)
def test_faulty_fields(folder, item, rule, value, title):
    with_one(folder, annotation_xml(item))
    fault = only_fault(folder, rule)
    assert value in fault.value
    assert fault.object == title


def test_missing_difficult_means_not_difficult(folder):
    dataset = read_voc(with_one(folder, annotation_xml(object_xml(extra=""))), "auto")
    assert dataset.truths[0].difficult.tolist() == [False]


def test_duplicate_objects_stay_with_a_warning(folder):
    other = (object_xml("cat"), object_xml("dog", (2, 3, 20, 31)))
    sources = with_one(folder, annotation_xml(object_xml(), *other, object_xml()))
    fault = only_fault(folder, "duplicate-object", "warning")
    assert (fault.object, fault.value) == (
        "object 4 (dog)",
        "the same class and box as object 1 (dog)",
    )
    assert len(read_voc(sources, "auto").truths[0]) == 4


def test_an_object_can_have_several_faults(folder):
    xml = annotation_xml(object_xml("dgo", (9, 9, 9, 20), "<difficult>x</difficult>"))
    with_one(folder, xml)
    rules = [fault.rule for fault in faults_of(folder)]
    assert rules == ["bad-difficult", "unknown-class", "zero-size-box"]


# ---- faults of images and annotations -------------------------------------------------------


def skipping_leaves_the_sound_image(folder):
    """Whether `skip` leaves out 000001 and keeps `sound`."""
    folder.add("sound")
    folder.split("train", "000001", "sound")
    dataset = read_voc([Source(folder.root, "train")], ["cat", "dog"], on_error="skip")
    counts = (dataset.num_skipped_images, dataset.num_skipped_objects)
    return dataset.image_ids == ("sound",) and counts == (1, 0)


def test_missing_image(folder):
    with_one(folder)
    (folder.images / "000001.jpg").rename(folder.images / "000001.txt")
    fault = only_fault(folder, "missing-image")
    assert fault.file == str(folder.images / "000001")
    assert ".webp" in fault.value
    assert skipping_leaves_the_sound_image(folder)


def test_missing_image_of_other_case(folder):
    with_one(folder)
    folder.add("IMG_1")
    (folder.annotations / "IMG_1.xml").rename(folder.annotations / "img_1.xml")
    folder.split("train", "img_1")
    assert "rename IMG_1.jpg" in only_fault(folder, "missing-image").remedy


def test_id_with_a_suffix(folder):
    folder.add("000001")
    folder.split("train", "000001.jpg")
    rules = {fault.rule: fault for fault in faults_of(folder)}
    assert set(rules) == {"missing-annotation", "missing-image"}
    assert "without a suffix" in rules["missing-image"].remedy


def test_two_images_of_one_id(folder):
    sources = with_one(folder, suffix=".bmp")
    (folder.images / "000001.jpg").write_bytes(photo())
    fault = only_fault(folder, "several-images", "warning")
    assert "000001.jpg and 000001.bmp" in fault.value
    assert read_voc(sources, "auto").metas[0].path.name == "000001.jpg"


@pytest.mark.parametrize("image", [b"a note", b"", photo(suffix=".jpg")[:600]])
def test_unreadable_image(folder, image):
    with_one(folder, image=image)
    fault = only_fault(folder, "unreadable-image")
    assert fault.file == str(folder.images / "000001.jpg")
    assert skipping_leaves_the_sound_image(folder)


def test_verification_decodes_and_can_be_left_out(folder):
    damaged = photo(suffix=".jpg")[:-500]
    sources = with_one(folder, image=damaged)
    with pytest.raises(DataFaults, match="cut off"):
        read_voc(sources, "auto")
    dataset = read_voc(sources, "auto", verify_images=False)
    with pytest.raises(DetectError, match="cut off"):
        dataset[0]


def test_without_verification_a_text_is_still_found(folder):
    with pytest.raises(DataFaults, match="unreadable-image"):
        read_voc(with_one(folder, image=b"a note"), "auto", verify_images=False)


def test_missing_annotation(folder):
    with_one(folder)
    (folder.annotations / "000001.xml").unlink()
    fault = only_fault(folder, "missing-annotation")
    assert fault.file == str(folder.annotations / "000001.xml")
    assert skipping_leaves_the_sound_image(folder)


ENTITIES = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize(
    ("xml", "rule", "value"),
    [
        ("<annotation>\n  <object></annotation>", "malformed-xml", "line 2, column 13"),
        ("", "malformed-xml", "no element found"),
        ("just text", "malformed-xml", "line 1, column 1"),
        (b"<annotation>\xff\xfe</annotation>", "malformed-xml", "invalid token"),
        (b"\0\0\0\0", "malformed-xml", ""),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "malformed-xml", ""),
        ('<?xml version="1.0" encoding="gb2312"?><annotation/>', "malformed-xml", ""),
        (ENTITIES + "<annotation><n>&y;</n></annotation>", "forbidden-xml", "entity"),
        (OUTSIDE + "<annotation><n>&x;</n></annotation>", "forbidden-xml", "entity"),
        ("<!DOCTYPE annotation><annotation/>", "forbidden-xml", "document type"),
        ("<html><object/></html>", "not-an-annotation", "found <html>"),
        (annotation_xml(size=("forty", 60)), "not-a-number", "height is 'forty'"),
        (annotation_xml("<size/>"), "repeated-field", "2 <size>"),
        ("<annotation><size><width>60</width></size></annotation>", "missing-field", "<height>"),
    ],
)
def test_faulty_annotations(folder, xml, rule, value):
    with_one(folder, xml)
    fault = only_fault(folder, rule)
    assert fault.file == str(folder.annotations / "000001.xml")
    assert fault.object is None
    assert value in fault.value
    assert skipping_leaves_the_sound_image(folder)


@pytest.mark.parametrize("size", [(41, 60), (40, 61), (0, 0), (40.5, 60), (60, 40)])
def test_size_that_contradicts_the_image(folder, size):
    # the box would lie outside: that follows from the size and is not told besides
    with_one(folder, annotation_xml(object_xml("dog", (1, 1, 200, 300)), size=size))
    fault = only_fault(folder, "size-mismatch")
    assert f"{size[1]} wide and {size[0]} high" in fault.value
    assert "60 wide and 40 high" in fault.value
    assert "EXIF" not in fault.value
    assert skipping_leaves_the_sound_image(folder)


def test_size_before_the_rotation(folder):
    with_one(folder, annotation_xml(object_xml(), size=(60, 40)), image=rotated_jpeg())
    fault = only_fault(folder, "size-mismatch")
    assert "before the EXIF rotation" in fault.value
    assert "exchange width and height" in fault.remedy


@pytest.mark.parametrize("extra", ["", "<size/>", "<size><depth>3</depth></size>"])
def test_missing_size_is_a_warning(folder, extra):
    sources = with_one(folder, annotation_xml(extra, object_xml(), size=None))
    only_fault(folder, "missing-size", "warning")
    assert len(read_voc(sources, "auto")) == 1


# ---- the set as a whole -----------------------------------------------------------------------


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_missing_root(folder, on_error):
    for root, found in ((folder.root / "none", "nothing"), (folder.root / "file", "a file")):
        (folder.root / "file").touch()
        with pytest.raises(DetectError, match=rf"expected a folder with Annotations.*{found}"):
            read_voc([Source(root, "train")], "auto", on_error=on_error)


def test_root_without_the_layout_names_the_right_folder(folder, tmp_path):
    folder.add("000001")
    folder.split("train", "000001")
    for wrong in (tmp_path, folder.annotations):
        with pytest.raises(DetectError, match="found no Annotations and no JPEGImages") as caught:
            read_voc([Source(wrong, "train")], "auto")
        assert f"did you mean {folder.root}?" in str(caught.value)
    folder.images.rename(folder.root / "images")
    with pytest.raises(DetectError, match="found no JPEGImages"):
        check_voc(folder.root)


def test_root_that_is_something_else(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(DetectError, match="there are: images"):
        check_voc(tmp_path)


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_missing_split(folder, on_error):
    folder.add("000001")
    folder.split("train", "000001")
    folder.split("test", "000001")
    folder.split("dog_train", "000001  1")
    with pytest.raises(DetectError) as caught:
        read_voc([Source(folder.root, "trian")], "auto", on_error=on_error)
    assert "did you mean 'train'?" in str(caught.value)
    assert "dog_train" not in str(caught.value)


def test_no_splits_at_all(folder):
    folder.add("000001")
    folder.splits.rmdir()
    with pytest.raises(DetectError, match=r"no split .train.; there are none"):
        read_voc([Source(folder.root, "train")], "auto")


@pytest.mark.parametrize("on_error", ["stop", "skip"])
@pytest.mark.parametrize("data", [b"", b" \r\n\n", b"\xef\xbb\xbf", b"000001 -1\n"])
def test_empty_split(folder, on_error, data):
    folder.add("000001")
    (folder.splits / "train.txt").write_bytes(data)
    with pytest.raises(DetectError, match="found no image"):
        read_voc([Source(folder.root, "train")], "auto", on_error=on_error)
    assert [fault.rule for fault in faults_of(folder, "auto")] == ["empty-split"]


def test_binary_split(folder):
    folder.add("000001")
    (folder.splits / "train.txt").write_bytes(b"PK\0\0\1\2")
    with pytest.raises(DetectError, match="found binary data"):
        read_voc([Source(folder.root, "train")], "auto")


def test_no_source():
    with pytest.raises(DetectError, match="at least one"):
        read_voc([], "auto")


def test_id_listed_twice(folder):
    folder.add("000001")
    folder.split("train", "000001", "000001")
    fault = only_fault(folder, "duplicate-image")
    assert fault.file == str(folder.splits / "train.txt")
    assert "000001 is listed twice" in fault.value
    dataset = read_voc([Source(folder.root, "train")], "auto", on_error="skip")
    assert (len(dataset), dataset.num_skipped_images) == (1, 1)


def test_id_listed_in_two_sources(folder, tmp_path):
    other = VOCFolder(tmp_path / "other")
    for each in (folder, other):
        each.add("000001")
        each.split("train", "000001")
        each.split("val", "000001")
    for second in (Source(folder.root, "val"), Source(other.root, "train")):
        with pytest.raises(DataFaults) as caught:
            read_voc([Source(folder.root, "train"), second], "auto")
        (fault,) = caught.value.faults
        assert fault.rule == "duplicate-image"
        assert fault.file == str(split_file(*second))
        assert str(folder.splits / "train.txt") in fault.value


def test_sources_are_joined_in_order(folder, tmp_path):
    other = VOCFolder(tmp_path / "other")
    folder.add("000001")
    folder.split("train", "000001")
    other.add("2008_1", annotation_xml(object_xml("cat")))
    other.split("trainval", "2008_1")
    sources = [Source(other.root, "trainval"), Source(folder.root, "train")]
    dataset = read_voc(sources, "auto")
    assert dataset.image_ids == ("2008_1", "000001")
    assert dataset.class_names == ("cat", "dog")
    assert [truth.labels.tolist() for truth in dataset.truths] == [[0], [1]]


def test_skipping_everything_is_an_error(folder):
    with pytest.raises(DetectError, match=r"none of the 1 images is left.*malformed-xml"):
        read_voc(with_one(folder, "<broken"), "voc", on_error="skip")


def test_an_image_stays_when_all_its_objects_go(folder):
    xml = annotation_xml(object_xml("dog", (5, 5, 5, 9)))
    dataset = read_voc(with_one(folder, xml), "auto", on_error="skip")
    assert [len(truth) for truth in dataset.truths] == [0]
    assert dataset.class_names == ("dog",)


def test_all_faults_are_raised_together(folder):
    ids = [f"{number:06}" for number in range(30)]
    for number, name in enumerate(ids):
        box = GOOD_BOX if number < 5 else (9, 9, 9, 20)
        folder.add(
            name, annotation_xml(object_xml("dog", box), size=None if number < 5 else (40, 60))
        )
    folder.split("train", *ids)
    with pytest.raises(DataFaults) as caught:
        read_voc([Source(folder.root, "train")], "auto")
    message = str(caught.value)
    assert len(caught.value.faults) == 30
    assert "has 25 errors:" in message
    assert message.count("zero-size-box") == 20
    assert "and 5 more" in message
    assert "5 warnings" in message
    assert "data.on_error=skip" in message
    assert f"detect data check {folder.root}" in message


def test_progress_counts_every_image(folder):
    ids = [f"{number}a" for number in range(7)]
    for name in ids:
        folder.add(name)
    folder.split("train", *ids)
    calls = []
    read_voc([Source(folder.root, "train")], "auto", progress=lambda *call: calls.append(call))
    assert calls == [(done, 7) for done in range(1, 8)]


def test_interruption_does_not_wait_for_the_rest(folder, monkeypatch):
    ids = [f"{number}a" for number in range(200)]
    for name in ids:
        folder.add(name)
    folder.split("train", *ids)
    measured = []

    def slow(path):
        measured.append(path)
        time.sleep(0.01)
        return (40, 60)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("detect.data.formats.voc.verify_image", slow)
    with pytest.raises(KeyboardInterrupt):
        read_voc([Source(folder.root, "train")], "auto", progress=interrupt)
    assert len(measured) < 100


# ---- check_voc --------------------------------------------------------------------------------


def test_check_takes_all_splits_and_each_image_once(folder):
    folder.add("000001")
    folder.add("000002", annotation_xml(object_xml(), object_xml("dog", (9, 9, 9, 20))))
    folder.add("unlisted", "<broken")
    folder.split("train", "000001")
    folder.split("val", "000002")
    folder.split("trainval", "000001", "000002")
    folder.split("dog_train", "000001  1", "000002 -1")
    report = check_voc(folder.root)
    assert (report.num_images, report.num_objects) == (2, 3)
    assert report.class_names == ("dog",)
    (fault,) = report.faults
    assert fault.as_dict() == {
        "file": str(folder.annotations / "000002.xml"),
        "object": "object 2 (dog)",
        "rule": "zero-size-box",
        "value": "xmin = xmax = 9: a box of no size, as a stray click leaves it",
        "remedy": "redraw the box or delete the object",
        "severity": "error",
    }


def test_check_without_splits_takes_every_annotation(folder):
    folder.add("000001")
    folder.add("000002", "<broken")
    folder.splits.rmdir()
    report = check_voc(folder.root)
    assert report.num_images == 2
    assert [fault.rule for fault in report.faults] == ["malformed-xml"]


def test_check_names_empty_and_doubled_splits(folder):
    folder.add("000001")
    folder.split("train", "000001", "000001")
    folder.split("val")
    report = check_voc(folder.root)
    assert report.num_images == 1
    assert [fault.rule for fault in report.faults] == ["duplicate-image", "empty-split"]


def test_check_of_nothing(folder):
    with pytest.raises(DetectError, match="found none"):
        check_voc(folder.root)
    with pytest.raises(DetectError, match="no split 'train'"):
        check_voc(folder.root, ["train"])


# ---- the data set -----------------------------------------------------------------------------


@pytest.fixture
def dataset(folder):
    hard = object_xml("cat", (5, 6, 7, 8), "<difficult>1</difficult>")
    folder.add("a", annotation_xml(object_xml(), hard))
    folder.add("b", annotation_xml(hard))
    folder.add("c", annotation_xml(object_xml("dog", (9, 9, 30, 30))))
    folder.split("train", "a", "b", "c")
    return read_voc([Source(folder.root, "train")], "auto")


def test_without_difficult_keeps_the_images(dataset):
    training = dataset.without_difficult()
    assert training.image_ids == ("a", "b", "c")
    assert [len(truth) for truth in training.truths] == [1, 0, 1]
    assert training.class_counts() == {"cat": 0, "dog": 2}
    assert training.class_names == dataset.class_names
    assert [len(truth) for truth in dataset.truths] == [2, 1, 1]


def test_subset(dataset):
    chosen = dataset.subset([2, 0])
    assert chosen.image_ids == ("c", "a")
    assert chosen.truths[0].boxes.tolist() == [[8, 8, 30, 30]]
    assert chosen[1].meta.image_id == "a"
    assert len(dataset.subset([])) == 0


def test_indexing(dataset):
    assert dataset[-1].meta.image_id == "c"
    assert dataset[-1].truth.boxes.tolist() == [[8, 8, 30, 30]]
    with pytest.raises(IndexError):
        dataset[3]
    with pytest.raises(IndexError):
        dataset.truths[3]
    assert [len(truth) for truth in dataset.truths[1:]] == [1, 1]


def test_truths_cannot_be_written_through(dataset):
    dataset.truths[0].boxes.zero_()
    assert dataset.truths[0].boxes[0].tolist() == [1, 2, 20, 30]


def test_the_set_travels_as_few_tensors(dataset):
    # every tensor is an open file on the way to a worker process
    tensors = [value for value in vars(dataset.truths).values() if torch.is_tensor(value)]
    assert len(tensors) == 3
    assert not any(torch.is_tensor(value) for value in vars(dataset).values())


def test_the_set_can_be_sent_to_a_worker(dataset):
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.image_ids == dataset.image_ids
    torch.testing.assert_close(copy[0].truth.boxes, dataset[0].truth.boxes, rtol=0, atol=0)


def test_image_that_changes_after_reading(dataset, folder):
    (folder.images / "a.jpg").write_bytes(photo((50, 50)))
    with pytest.raises(DetectError, match="replaced meanwhile"):
        dataset[0]
    (folder.images / "b.jpg").unlink()
    with pytest.raises(DetectError, match="no such file"):
        dataset[1]


def test_records_must_be_as_many_as_truths():
    meta = ImageMeta("a", None, (4, 4), (4, 4))
    with pytest.raises(ValueError, match="1 metas for 2 truths"):
        DetectionDataset(["dog"], [meta], [GroundTruth.empty()] * 2)
    with pytest.raises(ValueError, match="has no file"):
        DetectionDataset(["dog"], [meta], [GroundTruth.empty()])[0]


# ---- faults in print --------------------------------------------------------------------------


def test_fault_in_one_line():
    fault = Fault("a.xml", "object 3 (dog)", "zero-size-box", "xmin = xmax = 1", "redraw it")
    assert str(fault) == "a.xml, object 3 (dog): xmin = xmax = 1 [zero-size-box]; redraw it"
    warning = Fault("a.xml", None, "missing-size", "there is no <size>", "add it", "warning")
    assert str(warning) == "warning: a.xml: there is no <size> [missing-size]; add it"
    assert list(warning.as_dict()) == ["file", "object", "rule", "value", "remedy", "severity"]


# ---- damaged bytes and real data --------------------------------------------------------------


def mutated(sound, generator):
    """The bytes of an XML with some bytes changed, or a piece left out or put elsewhere."""
    kind = generator.integers(3)
    if kind == 0:
        xml = bytearray(sound)
        for position in generator.integers(0, len(xml), generator.integers(1, 4)):
            xml[position] = generator.integers(256)
        return bytes(xml)
    pieces = re.findall(rb"<[^>]*>|[^<]+", sound)
    source, target = generator.integers(0, len(pieces), 2)
    pieces[target] = pieces[source] if kind == 1 else b""
    return b"".join(pieces)


def test_mutated_annotations_give_a_set_or_one_error(folder):
    generator = np.random.default_rng(0)
    part = "<part><name>head</name><bndbox><xmin>7</xmin></bndbox></part>"
    sound = annotation_xml(object_xml(), object_xml("cat", (5, 6, 7, 8), part)).encode()
    sources = with_one(folder)
    num_sets, messages = 0, []
    for _ in range(300):
        (folder.annotations / "000001.xml").write_bytes(mutated(sound, generator))
        check_voc(folder.root)
        try:
            num_sets += len(read_voc(sources, ["cat", "dog"]))
        except DetectError as error:
            messages.append(str(error))
    assert num_sets > 10
    assert len(messages) > 50
    assert all(str(folder.root) in message for message in messages)


def test_deep_nesting(folder):
    depth = 100_000
    xml = "<annotation>" + "<a>" * depth + "</a>" * depth + "</annotation>"
    with_one(folder, xml)
    only_fault(folder, "missing-size", "warning")


def test_mutated_splits_give_a_set_or_one_error(folder):
    generator = np.random.default_rng(0)
    for name in ("000001", "000002"):
        folder.add(name)
    for _ in range(200):
        data = bytearray(b"000001\n000002\n")
        for position in generator.integers(0, len(data), 2):
            data[position] = generator.integers(256)
        (folder.splits / "train.txt").write_bytes(bytes(data))
        try:
            read_voc([Source(folder.root, "train")], "auto")
        except DetectError:
            continue


def test_bccd_has_two_errors(shared):
    report = check_voc(shared / "data" / "bccd")
    assert (report.num_images, report.num_objects) == (364, 4888)
    assert report.class_names == ("Platelets", "RBC", "WBC")
    errors = [fault for fault in report.faults if fault.severity == "error"]
    assert sorted(fault.file[-20:] for fault in errors) == [
        "BloodImage_00338.xml",
        "BloodImage_00343.xml",
    ]
    assert {fault.rule for fault in errors} == {"zero-size-box"}


def test_bccd_is_read_with_skipping(shared):
    sources = [Source(shared / "data" / "bccd", "trainval")]
    dataset = read_voc(sources, "auto", on_error="skip", verify_images=False)
    assert (len(dataset), dataset.num_skipped_images, dataset.num_skipped_objects) == (292, 0, 2)
    assert dataset[0].image.shape == (480, 640, 3)


def test_voc2012_sample_is_sound(shared):
    root = shared / "data" / "voc2012_sample"
    report = check_voc(root, classes="voc")
    assert (report.num_images, report.num_objects, report.faults) == (108, 284, ())
    dataset = read_voc([Source(root, "trainval"), Source(root, "test")], "voc")
    assert len(dataset) == 108
    assert sum(int(truth.difficult.sum()) for truth in dataset.truths) == 38
    assert sum(dataset.class_counts().values()) == 284
