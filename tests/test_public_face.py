"""`import detect`: its names, what `Model.predict` takes, and detections as a table."""

import gc
import http.server
import io
import json
import subprocess
import sys
import threading
import weakref
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import detect
from detect.config import load_config
from detect.data import read_image
from detect.errors import DetectError
from detect.evaluation import read_detections_json, write_coco_results
from detect.evaluation.files.detection_set import DetectionSet
from detect.experiment.model import build_detector
from detect.experiment.sources import image_of
from detect.structures import Detections, StructureError

NAMES = ("cat", "dog", "zebra")
TRANSPOSED = 6  # EXIF: to be turned by 90° clockwise


# --- the names ---------------------------------------------------------------------------------


def test_every_name_is_there_and_nothing_else_shows():
    assert dir(detect) == sorted(detect.__all__)
    for name in detect.__all__:
        assert getattr(detect, name) is not None
    shown = {name for name in vars(detect) if not name.startswith("_")}
    modules = {name for name, value in vars(detect).items() if isinstance(value, ModuleType)}
    assert shown - modules <= set(detect.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="modle"):
        detect.modle  # noqa: B018


def test_the_import_is_light():
    code = (
        "import sys, time; begin = time.perf_counter(); import detect; "
        "print(time.perf_counter() - begin, 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(3)
    ]
    seconds, *heavy = min(run.stdout.split() for run in runs)
    assert float(seconds) < 0.1
    assert heavy == ["False", "False"]


# --- predict -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> detect.Model:
    """Untrained: it finds something of any score everywhere."""
    config = detect.load_config(
        {
            "backbone": {"name": "tiny"},
            "detector": {"name": "yolo", "variant": "modern", "score_threshold": 0.0},
            "evaluation": {"batch_size": 2},
        }
    )
    detector = build_detector(config, len(NAMES)).eval()
    return detect.Model(detector, NAMES, config, torch.device("cpu"))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A picture that is different in each of its quarters and channels."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32], image[:24, 32:], image[24:, :32] = (250, 10, 20), (30, 200, 60), (90, 80, 255)
    path = tmp_path / "photo.png"
    Image.fromarray(image).save(path)
    return path


def png_bytes(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def test_each_form_of_an_image_is_the_same_image(photo: Path):
    image = read_image(photo)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    alpha = np.dstack((image, np.full(image.shape[:2], 7, np.uint8)))
    with photo.open("rb") as file:
        from_file = image_of(file)
    forms = [
        image_of(str(photo)),
        image_of(photo),
        image_of(Image.open(photo)),
        image_of(Image.fromarray(image).convert("RGBA")),
        image_of(image),
        image_of(np.asarray(Image.open(photo))),
        image_of(image / 255),
        image_of((image / 255).astype(np.float32)),
        image_of(alpha),
        image_of(cv2.imread(str(photo)), color="bgr"),
        image_of(alpha[:, :, [2, 1, 0, 3]], color="bgr"),
        image_of(tensor),
        image_of(tensor.float() / 255),
        image_of(photo.read_bytes()),
        image_of(io.BytesIO(photo.read_bytes())),
        from_file,
    ]
    for form in forms:
        np.testing.assert_array_equal(form, image)
        assert form.flags.c_contiguous
        assert form.flags.writeable  # or torch warns


def test_gray_images_become_rgb():
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4)
    expected = np.repeat(gray[:, :, None], 3, axis=2)
    deep = Image.fromarray(gray.astype(np.uint16) * 256 + 99)
    for form in (gray, gray[:, :, None], torch.from_numpy(gray)[None], Image.fromarray(gray), deep):
        np.testing.assert_array_equal(image_of(form), expected)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_pillow_image_is_turned_upright_as_a_file_is(photo: Path, suffix: str):
    path = photo.with_suffix(suffix)
    exif = Image.Exif()
    exif[0x0112] = TRANSPOSED
    Image.open(photo).save(path, exif=exif, quality=100)
    upright = read_image(path)
    assert upright.shape == (64, 48, 3)
    given = image_of(Image.open(path))
    assert given.shape == upright.shape
    assert np.abs(given.astype(int) - upright).mean() < 3  # two decoders of JPEG


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((4, 5, 3), np.int64), r"found int64.*astype\('uint8'\)"),
        (np.zeros((4, 5, 3), np.uint16), r"found uint16.*>> 8"),
        (np.zeros((4, 5), bool), r"found bool.*\* 255"),
        (np.full((4, 5, 3), 200.0), r"found 200 … 200; divide by 255"),
        (np.full((4, 5, 3), -0.5), r"-0.5.*mean and standard deviation"),
        (np.full((4, 5, 3), np.nan), r"0…1, found nan"),
        (np.zeros((3, 40, 50), np.uint8), r"transpose\(1, 2, 0\)"),
        (np.zeros((2, 4, 5, 3), np.uint8), r"list\(array\)"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (np.zeros(7, np.uint8), r"found \[7\]"),
        (torch.zeros(40, 50, 3), r"permute\(2, 0, 1\)"),
        (torch.zeros(40, 50), r"found \[40, 50\]"),
        (torch.full((3, 4, 5), 2.0), "divide by 255"),
        (b"", "found nothing"),
        (b"hello, this is no image at all", "hello"),
        (io.StringIO("text"), "'rb'"),
        ({"image": "a.jpg"}, "found dict"),
        (7, "found int"),
        (None, "found NoneType"),
        ("nothing.jpg", "nothing.jpg: there is no such file"),
        ("no_*.jpg", "found none"),
        ([np.zeros((4, 5, 3), np.uint8), 3.5], r"images\[1\].*found float"),
    ],
)  # fmt: skip
def test_rubbish_is_refused_with_the_remedy(model: detect.Model, given, message: str):
    with pytest.raises(DetectError, match=message):
        model.predict(given)


def test_an_unknown_order_of_channels_is_refused():
    with pytest.raises(DetectError, match="'rgb' or 'bgr', found 'gbr'"):
        image_of(np.zeros((4, 5, 3), np.uint8), color="gbr")


def test_a_damaged_pillow_image_is_refused(photo: Path):
    image = Image.open(io.BytesIO(photo.read_bytes()[:-40]))
    with pytest.raises(DetectError, match="Pillow image cannot be read"):
        image_of(image)


def test_one_image_gives_detections_and_many_a_list(model: detect.Model, photo: Path):
    image = read_image(photo)
    one = model.predict(photo, score_threshold=0)
    assert isinstance(one, Detections)
    assert len(one)
    assert one.class_names == NAMES
    folder = photo.parent
    batch = torch.from_numpy(image).permute(2, 0, 1)[None].repeat(3, 1, 1, 1)
    for given, count in (
        ([photo], 1),
        ((image, str(photo), Image.open(photo)), 3),
        (folder, 1),
        (str(folder / "*.png"), 1),
        ([folder, [image]], 2),
        (batch, 3),
        ((image for _ in range(5)), 5),
        ([], 0),
    ):
        found = model.predict(given, score_threshold=0)
        assert isinstance(found, list)
        assert len(found) == count
        for detections in found:
            torch.testing.assert_close(detections.boxes, one.boxes)


def test_the_threshold_is_the_one_of_the_command_line(model: detect.Model, photo: Path):
    import inspect

    from detect.cli.app import infer

    shown = inspect.signature(infer).parameters["score"].default
    assert inspect.signature(detect.Model.predict).parameters["score_threshold"].default == shown
    everything = model.predict(photo, score_threshold=0)
    middle = float(everything.scores[len(everything) // 2])
    kept = model.predict(photo, score_threshold=middle)
    assert 0 < len(kept) < len(everything)
    assert float(kept.scores.min()) >= middle


def test_a_stream_holds_one_batch_at_a_time(model: detect.Model):
    given = []

    def images():
        for _ in range(7):
            image = np.zeros((40, 50, 3), np.uint8)
            given.append(weakref.ref(image))
            yield image
            del image

    stream = model.predict(images(), score_threshold=0, stream=True)
    assert given == []
    size = model.config.evaluation.batch_size
    for number, found in enumerate(stream, start=1):
        assert isinstance(found, Detections)
        gc.collect()
        assert len(given) <= number + size
        assert sum(image() is not None for image in given) <= size
    assert number == len(given) == 7


# --- URLs --------------------------------------------------------------------------------------


@pytest.fixture
def server(photo: Path):
    """A web server that has the photo, and a page that is none."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/missing.png":
                self.send_error(404)
                return
            self.send_response(200)
            self.end_headers()
            page = b"<html>no image</html>"
            self.wfile.write(page if self.path == "/page" else photo.read_bytes())

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_urls_are_downloaded(model: detect.Model, photo: Path, server: str, monkeypatch):
    np.testing.assert_array_equal(image_of(f"{server}/photo.png"), read_image(photo))
    assert isinstance(model.predict(f"{server}/photo.png?size=*"), Detections)
    with pytest.raises(DetectError, match=r"missing.png: .*404"):
        model.predict(f"{server}/missing.png")
    with pytest.raises(DetectError, match="found an HTML page"):
        model.predict([f"{server}/page"])
    monkeypatch.setattr("detect.experiment.sources.MAX_URL_BYTES", 100)
    with pytest.raises(DetectError, match="more than 100 bytes"):
        model.predict(f"{server}/photo.png")


def test_an_absent_server_is_one_clear_error(model: detect.Model):
    with pytest.raises(DetectError, match=r"http://127.0.0.1:9/a.jpg: .*check the address"):
        model.predict("http://127.0.0.1:9/a.jpg")


# --- detections as a table ---------------------------------------------------------------------


def detections(class_names: tuple[str, ...] | None = NAMES) -> Detections:
    boxes = torch.tensor([[0.0, 1, 10, 20], [5, 5, 8, 9], [2, 3, 30, 40.5], [1, 1, 2, 2]])
    scores = torch.tensor([0.9, 0.75, 0.5, 0.1])
    return Detections(boxes, scores, torch.tensor([1, 0, 1, 2]), class_names=class_names)


def test_a_number_gives_one_detection():
    found = detections()
    assert found[0] == ((0.0, 1.0, 10.0, 20.0), pytest.approx(0.9), 1, "dog", None)
    assert found[-1].name == "zebra"
    assert found[np.int64(1)].label == 0
    assert detections(None)[0].name is None
    assert [one.score for one in found] == found.scores.tolist()
    for row in (4, -5):
        with pytest.raises(IndexError, match="there are 4"):
            found[row]
    joints = torch.tensor([[[1.0, 2.0]]] * 4)
    assert replace(found, joints=joints)[0].joints == ((1.0, 2.0),)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (slice(1, 3), [1, 2]),
        (slice(None, None, -1), [0, 1, 2, 3]),
        (slice(5, 9), []),
        ([2, 0], [0, 2]),
        ([], []),
        ([-1], [3]),
        (np.array([1, 3]), [1, 3]),
        (torch.tensor([3, 1]), [1, 3]),
        ([True, False, False, True], [0, 3]),
        (np.array([False, True, False, False]), [1]),
        (torch.tensor([False] * 4), []),
    ],
)
def test_slices_masks_and_lists_give_detections(rows, expected):
    found = detections()
    part = found[rows]
    assert isinstance(part, Detections)
    assert part.class_names == NAMES
    torch.testing.assert_close(part.boxes, found.boxes[expected])
    torch.testing.assert_close(part.scores, found.scores[expected])
    torch.testing.assert_close(part.labels, found.labels[expected])


@pytest.mark.parametrize("rows", [[True], [4], [-5], 1.5, "dog", [[0]]])
def test_other_indices_are_refused(rows):
    with pytest.raises((IndexError, TypeError)):
        detections()[rows]


def test_filters():
    found = detections()
    assert found.filter(score=0.5).scores.tolist() == found.scores[:3].tolist()
    assert found.filter(classes="dog").labels.tolist() == [1, 1]
    assert found.filter(classes=["cat", 2]).labels.tolist() == [0, 2]
    assert found.filter(score=0.6, classes=["dog"]).scores.tolist() == [pytest.approx(0.9)]
    assert len(found.filter(classes=[])) == 0
    assert len(found.filter()) == 4
    with pytest.raises(DetectError, match="unknown class 'dgo'; did you mean 'dog'"):
        found.filter(classes="dgo")
    with pytest.raises(DetectError, match="from 0 to 2, found 3"):
        found.filter(classes=3)
    with pytest.raises(DetectError, match="no class names"):
        detections(None).filter(classes="dog")
    assert detections(None).filter(classes=[1]).labels.tolist() == [1, 1]


def test_names_travel_and_must_be_enough():
    found = detections()
    meta = detect.ImageMeta("a", None, (50, 60), (50, 60))
    assert found.restored(meta).class_names == NAMES
    assert found.to(torch.device("cpu")).class_names == NAMES
    assert found.with_score_at_least(0.5).class_names == NAMES
    with pytest.raises(StructureError, match="a name for label 2, found 2 names"):
        detections(NAMES[:2])


def test_short_reprs(model: detect.Model):
    assert repr(detections()) == "Detections(4: dog 0.90, cat 0.75, dog 0.50, …)"
    assert repr(detections(None)[:1]) == "Detections(1: class 1 0.90)"
    assert repr(Detections.empty()) == "Detections(0)"
    assert repr(model) == "Model(yolo on tiny, 3 classes: cat, dog, zebra; cpu)"


def test_pandas():
    pytest.importorskip("pandas", reason="pandas is optional")
    frame = detections().to_pandas()
    assert list(frame.columns) == ["x1", "y1", "x2", "y2", "score", "label", "name"]
    assert frame["name"].tolist() == ["dog", "cat", "dog", "zebra"]
    assert frame.loc[2, "y2"] == 40.5
    assert "name" not in detections(None).to_pandas().columns


def test_supervision(monkeypatch):
    stand_in = ModuleType("supervision")
    stand_in.Detections = lambda **fields: fields
    monkeypatch.setitem(sys.modules, "supervision", stand_in)
    fields = detections().to_supervision()
    assert fields["xyxy"].shape == (4, 4)
    assert fields["confidence"].tolist() == detections().scores.tolist()
    assert fields["class_id"].tolist() == [1, 0, 1, 2]
    assert fields["data"]["class_name"].tolist() == ["dog", "cat", "dog", "zebra"]
    assert detections(None).to_supervision()["data"] == {}


@pytest.mark.parametrize("name", ["pandas", "supervision"])
def test_an_absent_package_is_one_clear_error(name: str, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DetectError, match=f"to_{name}: {name} is not installed; pip install"):
        getattr(detections(), f"to_{name}")()


def test_coco_entries(tmp_path: Path):
    entries = detections().as_coco(17)
    assert entries[2] == {
        "image_id": 17,
        "category_id": 2,
        "bbox": [2.0, 3.0, 28.0, 37.5],
        "score": 0.5,
    }
    assert [entry["category_id"] for entry in detections().as_coco("a", [7, 8, 9])] == [8, 7, 8, 9]
    whole = DetectionSet(NAMES, ("a",), (detections(),))
    write_coco_results(tmp_path / "a.json", whole, [17], [1, 2, 3])
    assert json.loads((tmp_path / "a.json").read_text()) == entries


def test_save(tmp_path: Path):
    found = detections()
    found.save(str(tmp_path / "photo.json"))
    again = read_detections_json(tmp_path / "photo.json")
    assert again.image_ids == ("photo",)
    assert again.class_names == NAMES
    torch.testing.assert_close(again.detections[0].boxes, found.boxes)
    found.save(tmp_path / "rows.csv", image_id="000001")
    assert (tmp_path / "rows.csv").read_text().splitlines()[1].startswith("000001,dog,0.9,")
    with pytest.raises(DetectError, match=r"ends in .json or .csv"):
        found.save(tmp_path / "photo.xml")
    with pytest.raises(DetectError, match="no class names"):
        detections(None).save(tmp_path / "other.json")


def test_plot(photo: Path, model: detect.Model):
    drawn = detections().plot(photo)
    assert isinstance(drawn, Image.Image)
    assert drawn.height == 384  # enlarged, so that the labels can be read
    plain = detections(None).plot(photo)
    assert plain.size == drawn.size
    assert np.any(np.asarray(plain) != np.asarray(drawn))
    nothing = np.asarray(detections().plot(photo, score_threshold=0.95))
    assert np.any(nothing != np.asarray(drawn))
    assert isinstance(model.draw(photo, score_threshold=0), Image.Image)
    with pytest.raises(DetectError, match="expected one image"):
        detections().plot([photo])


# --- configs, training, evaluation -------------------------------------------------------------


def test_overrides_are_sections_or_dotted_keys(tmp_path: Path):
    file = tmp_path / "own.yaml"
    file.write_text("training: {epochs: 7, batch_size: 4}\n")
    sections = detect.load_config(file, training={"epochs": 2}, data={"root": tmp_path})
    dotted = detect.load_config(str(file), **{"training.epochs": 2, "data.root": str(tmp_path)})
    assert sections == dotted
    assert (sections.training["epochs"], sections.training["batch_size"]) == (2, 4)
    assert detect.load_config(file) == load_config(file)[0]
    assert detect.load_config(sections, seed=3).seed == 3
    given = {"training": {"epochs": 7}}
    assert detect.load_config(given, training={"epochs": 1}).training["epochs"] == 1
    assert given == {"training": {"epochs": 7}}
    with pytest.raises(DetectError, match=r"overrides: training.epoch: .*did you mean 'epochs'"):
        detect.load_config(file, training={"epoch": 2})
    with pytest.raises(DetectError, match="seed is a value"):
        detect.load_config({"seed": 3}, **{"seed.x": 2})


def test_training_on_data_sets_made_in_python(tmp_path: Path):
    paths = []
    for number in range(6):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.full((64, 64, 3), 40 * number, np.uint8)).save(path)
        paths.append(path)
    rows = [(path, [[8, 8, 40, 48]], ["dog"]) for path in paths]
    data = detect.DetectionDataset.from_boxes(rows, NAMES)
    model = detect.train(
        {
            "data": {"num_workers": 0, "cache": tmp_path / "cache"},
            "detector": {"name": "yolo", "variant": "modern", "head": "convolutional"},
        },
        {"train": data, "val": data},
        out=str(tmp_path / "run"),
        device="cpu",
        progress=False,
        **{"training.epochs": 1, "training.batch_size": 3, "detector.input_size": 64},
    )
    assert model.class_names == NAMES
    assert model.folder == tmp_path / "run"
    assert (tmp_path / "run" / "curves.png").exists()
    assert model.evaluation.report.protocol.num_images == 6
    assert len(detect.evaluate(str(tmp_path / "run"), data).detections) == 6
    with pytest.raises(DetectError, match=r"made in Python.*model.evaluate\(data\)"):
        model.evaluate()
    with pytest.raises(DetectError, match="none beside a data set"):
        model.evaluate(data, "val")
    with pytest.raises(DetectError, match="classes of the model, cat, dog, zebra, found dog"):
        model.evaluate(detect.DetectionDataset.from_boxes(rows, ["dog"]))
    for wrong, message in (
        ({"training": data}, "found the keys training"),
        ({"train": data, "val": detect.DetectionDataset.from_boxes(rows)}, "in val, found dog"),
    ):
        with pytest.raises(DetectError, match=message):
            detect.train("yolo_tiny_shapes", wrong, out=tmp_path / "none")


def test_data_sets_are_checked_and_converted(tmp_path: Path):
    detect.read_dataset(tmp_path / "shapes", "train", "shapes", num_images=10, image_size=64)
    assert detect.check_dataset(str(tmp_path / "shapes")).num_images == 10
    out = detect.convert_dataset(tmp_path / "shapes", str(tmp_path / "coco"), "coco")
    train_set = detect.read_dataset(out, "train", "coco")
    truths = detect.read_dataset(tmp_path / "shapes", "train").truths
    assert [len(truth) for truth in train_set.truths] == [len(truth) for truth in truths]
    with pytest.raises(DetectError, match="did you mean 'yolo'"):
        detect.convert_dataset(out, tmp_path / "other", "yollo")


def test_backbones_and_detectors_by_name():
    assert {"yolo", "faster_rcnn", "localizer"} <= set(detect.list_detectors())
    assert "resnet18" in detect.list_backbones()
    assert detect.list_backbones("resnet1[58]*") == ["resnet18", "resnet152"]
    assert isinstance(detect.create_backbone("tiny"), detect.Backbone)
    with pytest.raises(DetectError, match="did you mean 'tiny'"):
        detect.create_backbone("tinny")
