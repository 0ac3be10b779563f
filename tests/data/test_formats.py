import pytest

from detect.data import (
    DataFaults,
    detect_format,
    read_annotated,
    read_dataset,
    splits_of,
    write_annotated,
)
from detect.data.reading import SIGNS
from detect.errors import DetectError
from tests.data.voc_folder import VOCFolder, annotation_xml, object_xml, read_voc


@pytest.fixture
def voc(tmp_path):
    folder = VOCFolder(tmp_path / "voc")
    crowd = object_xml("cat", (5, 6, 30, 20), "<crowd>1</crowd>")
    hard = object_xml("ant", (5, 6, 30, 25), "<difficult>1</difficult>")
    folder.add("a", annotation_xml(object_xml("dog"), crowd, hard))
    folder.add("b")
    folder.split("train", "a")
    folder.split("val", "b")
    return folder.root


@pytest.fixture
def roots(tmp_path, voc):
    source = read_annotated(voc)
    for name in ("coco", "yolo"):
        write_annotated(source, tmp_path / name, name)
    return {"voc": voc, "coco": tmp_path / "coco", "yolo": tmp_path / "yolo"}


def test_each_format_is_found(roots):
    for name, root in roots.items():
        assert detect_format(root) == name
        assert sorted(splits_of(root)) == ["train", "val"]
    assert detect_format(roots["yolo"] / "data.yaml") == "yolo"


def test_no_format(tmp_path, roots):
    with pytest.raises(DetectError) as caught:
        detect_format(tmp_path)
    for sign in SIGNS.values():
        assert sign in str(caught.value)
    assert f"did you mean {roots['coco']}" in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DetectError, match="an empty folder"):
        detect_format(tmp_path / "empty" / ".." / "empty")
    with pytest.raises(DetectError, match="found nothing"):
        detect_format(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(DetectError, match="another file"):
        detect_format(tmp_path / "file")


def test_several_formats(roots):
    (roots["voc"] / "data.yaml").write_text("names: [a]\n")
    with pytest.raises(DetectError, match=r"voc and yolo.*data\.kind.*--from"):
        detect_format(roots["voc"])
    assert len(read_annotated(roots["voc"], data_format="voc").images) == 2


def test_difficult_objects_and_crowds_are_difficult_to_a_detector(roots):
    for root in roots.values():
        dataset = read_dataset(root, "train")
        assert dataset.image_ids == ("a",)
        assert dataset.class_names == ("ant", "cat", "dog")
        assert dataset.truths[0].labels.tolist() == [2, 1, 0]
        assert dataset.truths[0].difficult.tolist() == [False, True, True]
        assert len(dataset.without_difficult().truths[0]) == 1
        assert dataset[0].image.shape == (40, 60, 3)


def test_sets_of_several_formats_are_joined(roots):
    sources = [(roots["coco"], "train"), (roots["yolo"], "val")]
    dataset = read_voc(sources, ["dog", "cat", "ant"], kind="auto")
    assert dataset.image_ids == ("a", "b")
    assert [truth.labels.tolist() for truth in dataset.truths] == [[0, 1, 2], [0]]
    twice = [(roots["coco"], "train"), (roots["voc"], "train")]
    with pytest.raises(DataFaults, match="duplicate-image"):
        read_voc(twice, kind="auto")
    assert len(read_voc(twice, kind="auto", on_error="skip")) == 1


@pytest.mark.parametrize(("named", "found"), [("voc", "coco"), ("voc", "yolo"), ("coco", "voc")])
def test_the_error_says_which_kind_to_set(roots, named, found):
    with pytest.raises(DetectError, match=f"set data.kind={found}"):
        read_dataset(roots[found], "train", named)


def test_faults_stop_or_are_left_out(roots):
    path = roots["yolo"] / "labels/train/a.txt"
    path.write_text(path.read_text() + "9 0 0 0 0\n")
    root = roots["yolo"]
    with pytest.raises(DataFaults, match="unknown-class"):
        read_dataset(root, "train")
    dataset = read_dataset(root, "train", on_error="skip")
    assert (len(dataset.truths[0]), dataset.num_skipped_objects) == (3, 1)
    (roots["yolo"] / "images/train/a.png").write_bytes(b"")
    (roots["yolo"] / "images/train/a.jpg").write_bytes(b"")
    with pytest.raises(DetectError, match="none of the 2 images is left"):
        read_dataset(root, "train", on_error="skip")


def test_images_are_decoded_on_demand(roots):
    path = next((roots["coco"] / "images").glob("a.*"))
    path.write_bytes(path.read_bytes()[:-20])
    root = roots["coco"]
    assert len(read_dataset(root, "train", verify_images=False)) == 1
    with pytest.raises(DataFaults, match="unreadable-image"):
        read_dataset(root, "train")
