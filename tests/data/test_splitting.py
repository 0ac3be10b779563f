import numpy as np
import pytest

from detect.data import (
    counts_by_split,
    parse_shares,
    read_annotated,
    stratify,
    with_splits,
    write_annotated,
    write_splits,
)
from detect.errors import DetectError
from tests.data.voc_folder import VOCFolder, annotation_xml, object_xml

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def skewed_counts(num_images=400, seed=0):
    """Counts of four classes from common to rare, [N, C]; some images are empty."""
    generator = np.random.default_rng(seed)
    return generator.poisson([2.0, 0.8, 0.2, 0.05], (num_images, 4))


# ---- stratification ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_every_class_is_shared_in_proportion(seed):
    counts = skewed_counts(seed=seed)
    splits = stratify(counts, SHARES, seed)
    found = counts_by_split(counts, splits, list(SHARES))
    for name, share in SHARES.items():
        num_images, objects = found[name]
        assert num_images / len(counts) == pytest.approx(share, abs=0.01)
        with_class = (counts[np.array(splits) == name] > 0).sum(axis=0)
        for own, total in zip(with_class, (counts > 0).sum(axis=0), strict=True):
            assert abs(own - share * total) <= 3
        for own, total in zip(objects, counts.sum(axis=0), strict=True):
            assert abs(own - share * total) <= max(4, 0.05 * total)


def test_a_rare_class_is_in_every_split_where_chance_would_miss_it():
    counts = np.zeros((300, 2), np.int64)
    counts[:, 0] = 3
    counts[[5, 120, 250], 1] = 1  # three images
    for seed in range(10):
        splits = stratify(counts, {"a": 0.4, "b": 0.3, "c": 0.3}, seed)
        assert {splits[5], splits[120], splits[250]} == {"a", "b", "c"}


def test_same_seed_same_splits():
    counts = skewed_counts()
    assert stratify(counts, SHARES, 3) == stratify(counts, SHARES, 3)
    assert stratify(counts, SHARES, 3) != stratify(counts, SHARES, 4)


@pytest.mark.parametrize("num_images", [3, 4, 7])
def test_no_split_is_empty(num_images):
    for counts in (np.zeros((num_images, 1), np.int64), np.full((num_images, 1), 9)):
        assert set(stratify(counts, SHARES, 0)) == set(SHARES)


def test_more_splits_than_images():
    with pytest.raises(DetectError, match="found 2 for 3"):
        stratify(np.ones((2, 1), np.int64), SHARES, 0)


def test_images_without_objects_and_classes():
    splits = stratify(np.zeros((100, 0), np.int64), SHARES, 0)
    assert [splits.count(name) for name in SHARES] == [80, 10, 10]


@pytest.mark.parametrize(
    "text",
    ["", "train", "train=", "train=x", "train=0,val=1", "train=-1,val=2", "a=0.5,a=0.5",
     "train=0.8,val=0.1", "train=nan", "train=80,val=20", "../x=1", "a/b=1", "=1"],
)  # fmt: skip
def test_shares_that_make_no_sense(text):
    with pytest.raises(DetectError, match="--shares"):
        parse_shares(text)


def test_shares_are_made_to_add_up():
    shares = parse_shares("a=0.3333, b=0.3333 ,c=0.3333")
    assert sum(shares.values()) == pytest.approx(1, abs=1e-12)
    assert list(shares) == ["a", "b", "c"]


# ---- files ------------------------------------------------------------------------------------


@pytest.fixture
def voc(tmp_path):
    folder = VOCFolder(tmp_path / "voc")
    for number in range(20):
        hard = object_xml("cat", (5, 6, 30, 20), "<difficult>1</difficult>")
        objects = [object_xml("dog")] * (number % 3 == 0) + [hard] * (number % 2)
        folder.add(f"{number:03}", annotation_xml(*objects))
    folder.split("train", *(f"{number:03}" for number in range(12)))
    folder.split("val", *(f"{number:03}" for number in range(12, 18)))  # two are in no split
    return folder.root


def shared_out(root, names=("train", "held")):
    """The set with its images dealt out to splits of these names."""
    annotated = read_annotated(root, ())
    splits = [names[number % len(names)] for number in range(len(annotated.images))]
    return with_splits(annotated, splits)


def objects_of(annotated):
    return {
        p.image_path.name: [(o.name, o.box, o.difficult) for o in p.objects]
        for p in annotated.images
    }


@pytest.mark.parametrize("data_format", ["voc", "coco", "yolo"])
def test_splits_in_place(tmp_path, voc, data_format):
    root = tmp_path / "set"
    write_annotated(read_annotated(voc), root, data_format)
    before = objects_of(read_annotated(root, ()))
    shared = shared_out(root)
    with pytest.raises(DetectError, match="--force"):
        write_splits(shared)
    written = write_splits(shared, force=True)
    assert all(path.is_file() for path in written.files)
    again = read_annotated(root, ["train", "held"])
    assert again.faults == ()
    assert {p.image_path: p.splits for p in again.images} == {
        p.image_path: p.splits for p in shared.images
    }
    assert objects_of(again) == before
    if data_format != "yolo":  # whose YAML file names the new splits alone
        assert any("val stay as they were" in note for note in written.notes)
    # and once more, from what is there now
    write_splits(shared_out(root, ("held", "train")), force=True)
    assert objects_of(read_annotated(root, ["train", "held"])) == before


def test_every_annotation_of_a_voc_folder_is_shared(voc):
    shared = shared_out(voc)
    assert len(shared.images) == 20
    (voc / "ImageSets/Main/train.txt").unlink()
    write_splits(shared)
    ids = (voc / "ImageSets/Main/train.txt").read_text().split()
    assert ids == [f"{number:03}" for number in range(0, 20, 2)]


def test_cocos_own_folders_of_images_stay(tmp_path, voc):
    root = tmp_path / "set"
    write_annotated(read_annotated(voc), root, "coco")
    (root / "train").mkdir()
    (root / "val").mkdir()
    for name in ("train", "val"):
        for image in read_annotated(root, [name]).images:
            image.image_path.rename(root / name / image.image_path.name)
    shared = shared_out(root)
    write_splits(shared, force=True)
    again = read_annotated(root, ["train", "held"])
    assert again.faults == ()
    assert sorted(p.image_path for p in again.images) == sorted(p.image_path for p in shared.images)


def test_roboflows_folders_cannot_be_split_in_place(tmp_path, voc):
    root = tmp_path / "set"
    write_annotated(read_annotated(voc, ["train"]), root, "coco")
    (root / "images").rename(root / "train")
    (root / "annotations/instances_train.json").rename(root / "train/_annotations.coco.json")
    (root / "annotations").rmdir()
    shared = shared_out(root)
    assert len(shared.images) == 12
    with pytest.raises(DetectError, match="Roboflow"):
        write_splits(shared, force=True)
