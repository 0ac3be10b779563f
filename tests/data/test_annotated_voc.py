from xml.etree.ElementTree import Element, fromstring, tostring

import pytest

from detect.data import read_dataset
from detect.data.formats.set_extras import EXTRAS_FILE, SetExtras, set_extras_text
from detect.data.formats.voc import read_annotated_voc
from detect.data.formats.voc_extras import (
    OBJECT_TAGS,
    ExtrasError,
    read_object_extras,
    write_extras,
)
from detect.errors import DetectError
from tests.data.voc_folder import VOCFolder, annotation_xml, object_xml, photo


@pytest.fixture
def folder(tmp_path):
    return VOCFolder(tmp_path / "set")


def test_all_that_the_files_say(folder):
    head = "<annotation><folder>VOC</folder><source><database>a &amp; b</database></source>"
    size = "<size><width>60</width><height>40</height><depth>3</depth></size>"
    extra = "<pose>Left</pose><truncated>1</truncated><difficult>1</difficult><crowd>0</crowd>"
    parts = "<part><name>head</name></part><part><name>tail</name></part>"
    crowd = object_xml("cat", (2.5, 3, 4, 30), "<iscrowd>1</iscrowd>")
    xml = f"{head}{size}{object_xml('dog', extra=extra + parts)}{crowd}</annotation>"
    folder.add("000001", xml)
    folder.split("train", "000001")
    annotated = read_annotated_voc(folder.root)
    assert annotated.faults == ()
    assert (annotated.data_format, annotated.class_names) == ("voc", ("cat", "dog"))
    (found,) = annotated.images
    assert (found.image_id, found.size, found.splits) == ("000001", (40, 60), ("train",))
    assert found.image_path == folder.images / "000001.jpg"
    assert found.annotation_path == folder.annotations / "000001.xml"
    assert found.extras == {"depth": 3, "folder": "VOC", "source": {"database": "a & b"}}
    dog, cat = found.objects
    assert (dog.title, dog.name, dog.box) == ("object 1 (dog)", "dog", (1, 2, 20, 30))
    assert (dog.difficult, dog.crowd) == (True, False)
    assert dog.extras == {
        "pose": "Left",
        "truncated": 1,
        "part": [{"name": "head"}, {"name": "tail"}],
    }
    assert (cat.box, cat.difficult, cat.crowd) == ((1.5, 2, 4, 30), False, True)


def test_a_crowd_is_difficult_to_a_detector(folder):
    folder.add("a", annotation_xml(object_xml(extra="<crowd>1</crowd>")))
    folder.split("train", "a")
    dataset = read_dataset(folder.root, "train")
    assert dataset.truths[0].difficult.tolist() == [True]


@pytest.mark.parametrize("tag", ["crowd", "iscrowd"])
def test_a_crowd_flag_that_is_none(folder, tag):
    folder.add("a", annotation_xml(object_xml(extra=f"<{tag}>many</{tag}>")))
    folder.split("train", "a")
    annotated = read_annotated_voc(folder.root)
    assert [fault.rule for fault in annotated.faults] == [f"bad-{tag}"]
    assert annotated.faults[0].object == "object 1 (dog)"
    assert annotated.num_skipped_objects == 1


def test_splits_joint_and_chosen(folder):
    for name in ("a", "b", "c"):
        folder.add(name)
    folder.split("trainval", "a", "b")
    folder.split("train", "a")
    annotated = read_annotated_voc(folder.root)
    found = {photo.image_id: photo.splits for photo in annotated.images}
    assert found == {"a": ("train", "trainval"), "b": ("trainval",)}
    (fault,) = annotated.faults
    assert (fault.rule, fault.severity) == ("unlisted-images", "warning")
    assert "1 annotations" in fault.value
    chosen = read_annotated_voc(folder.root, ["train"])
    assert [(p.image_id, p.splits) for p in chosen.images] == [("a", ("train",))]
    assert chosen.faults == ()
    everything = read_annotated_voc(folder.root, [])
    assert [(p.image_id, p.splits) for p in everything.images] == [(n, ()) for n in "abc"]
    with pytest.raises(DetectError, match="no split 'val'"):
        read_annotated_voc(folder.root, ["val"])


def test_faulty_images_and_objects_are_left_out(folder):
    folder.add("a", annotation_xml(object_xml(), object_xml(box=(5, 5, 5, 9))))
    folder.add("b", "<broken")
    folder.split("train", "a", "b")
    annotated = read_annotated_voc(folder.root)
    assert [fault.rule for fault in annotated.faults] == ["zero-size-box", "malformed-xml"]
    assert [len(photo.objects) for photo in annotated.images] == [1]
    assert (annotated.num_skipped_images, annotated.num_skipped_objects) == (1, 1)


def test_images_are_verified_on_demand(folder):
    folder.add("a", image=photo()[:-20])
    folder.split("train", "a")
    assert read_annotated_voc(folder.root).faults == ()
    annotated = read_annotated_voc(folder.root, verify_images=True)
    assert [fault.rule for fault in annotated.faults] == ["unreadable-image"]


def test_class_order_of_the_extras_file(folder):
    folder.add("a", annotation_xml(object_xml("ant"), object_xml("dog", (9, 9, 30, 30))))
    folder.split("train", "a")
    text = set_extras_text(SetExtras(("dog", "cat"), {"licenses": [1]}))
    (folder.root / EXTRAS_FILE).write_text(text)
    annotated = read_annotated_voc(folder.root)
    assert annotated.class_names == ("dog", "cat", "ant")
    assert annotated.extras == {"licenses": [1]}
    assert read_annotated_voc(folder.root, classes=["ant", "dog"]).class_names == ("ant", "dog")


@pytest.mark.parametrize("content", ["{", '{"written_by": "detect data convert"}'])
def test_a_broken_extras_file_is_a_warning(folder, content):
    folder.add("a")
    folder.split("train", "a")
    (folder.root / "extras.json").write_text(content)
    annotated = read_annotated_voc(folder.root)
    assert [(f.rule, f.severity) for f in annotated.faults] == [("bad-extras", "warning")]
    assert len(annotated.images) == 1


def test_an_extras_file_of_someone_else(folder):
    folder.add("a")
    folder.split("train", "a")
    (folder.root / "extras.json").write_text("[1, 2]")
    assert read_annotated_voc(folder.root).faults == ()


# ---- extras in XML ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        0,
        -17,
        10**30,
        "Left",
        "",
        "007",
        "7",
        " padded ",
        "a & <b> é 漢",
        "line\nbreak",
        "bell\a",
        1.5,
        True,
        None,
        [],
        [1],
        [1, "two"],
        [[1, 2], [3, 4]],
        {},
        {"a": {"b": 1}, "c": ["x", "y"]},
        {"two words": 1},
        {"a": 0.1},
    ],
)
def test_extras_come_back_from_xml(value):
    element = Element("object")
    write_extras(element, {"key": value, "odd key": value, "name": value}, OBJECT_TAGS)
    extras = read_object_extras(fromstring(tostring(element)))
    assert extras == {"key": value, "odd key": value, "name": value}
    assert {type(v) for v in extras.values()} == {type(value)}


def test_usual_extras_are_elements_of_their_own():
    element = Element("object")
    write_extras(element, {"truncated": 0, "pose": "Left"}, OBJECT_TAGS)
    assert tostring(element) == b"<object><truncated>0</truncated><pose>Left</pose></object>"


@pytest.mark.parametrize("text", ["{", "[1]", "", "[" * 100_000])
def test_extras_that_are_no_json(text):
    with pytest.raises(ExtrasError):
        read_object_extras(fromstring(f"<object><extras>{text}</extras></object>"))


def test_broken_and_deep_extras_are_warnings(folder):
    deep = "<a>" * 1000 + "</a>" * 1000
    folder.add("a", annotation_xml(object_xml(extra=deep)))
    folder.add("b", annotation_xml(object_xml(), deep))
    folder.split("train", "a", "b")
    annotated = read_annotated_voc(folder.root)
    assert [(f.rule, f.object) for f in annotated.faults] == [
        ("bad-extras", "object 1 (dog)"),
        ("bad-extras", None),
    ]
    assert [len(photo.objects) for photo in annotated.images] == [1, 1]
