"""Broken and malicious files: reading ends well or in a DetectError, soon and in bounded memory.

Every case is made of its number, so that a failure names it: `mutated(…, number)` makes it again.
"""

import json
import resource
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib

import numpy as np
import pytest

from detect.config import load_config
from detect.configs import shipped_configs
from detect.data import ImageError, read_image, read_image_header, verify_image
from detect.data.checking import check_annotated
from detect.data.formats.voc import read_annotated_voc
from detect.data.reading import read_annotated
from detect.errors import DetectError
from detect.yaml_text import BrokenYAMLError, parse_yaml
from tests.conftest import REPOSITORY
from tests.data.checked_folder import encoded, scene
from tests.data.mutations import ANY, JPEG, JSON, XML, YAML, change_number, laughs, mutate
from tests.data.voc_folder import VOCFolder, annotation_xml, check_voc, object_xml, photo
from tests.data.written_sets import write_coco, write_yolo

# Seconds; each case takes milliseconds, and a busy machine is given its time.
PATIENCE = 5.0


def mutated(sources, kinds, number):
    return mutate(sources[number % len(sources)], np.random.default_rng([7, number]), kinds)


def in_time(number, work, *arguments):
    """The result of a call, or the DetectError it ended in; anything else fails."""
    start = time.perf_counter()
    try:
        return work(*arguments)
    except DetectError as error:
        return error
    except Exception as error:
        pytest.fail(f"case {number}: {type(error).__name__}: {error}")
    finally:
        assert time.perf_counter() - start < PATIENCE, number


# ---- annotations ------------------------------------------------------------------------------

ANNOTATIONS = (
    annotation_xml(object_xml(), object_xml("cat", (1, 1, 30, 30))).encode(),
    annotation_xml(
        object_xml(extra="<pose>Left</pose><truncated>1</truncated><difficult>1</difficult>"),
        *(object_xml("cat", (n + 1, n + 2, n + 20, n + 15)) for n in range(8)),
        head='<?xml version="1.0" encoding="UTF-8"?>\n',
    ).encode(),
)


def rubbish_folder(root, num):
    folder = VOCFolder(root)
    image = photo(suffix=".jpg")
    for number in range(num):
        folder.add(f"{number:06}", mutated(ANNOTATIONS, XML, number), image)
    folder.split("train", *(f"{number:06}" for number in range(num)))
    return folder


@pytest.mark.parametrize("num", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_mutated_annotations(tmp_path, num):
    folder = rubbish_folder(tmp_path / "set", num)
    start = time.perf_counter()
    report = check_voc(folder.root, ["train"], ["cat", "dog"])
    annotated = read_annotated_voc(folder.root, classes=["cat", "dog"])
    assert time.perf_counter() - start < 0.05 * num + PATIENCE
    assert report.num_images == num
    assert len(annotated.images) + annotated.num_skipped_images == num
    # what is broken is said, file by file, and something has remained
    files = {fault.file for fault in report.faults}
    assert 0.3 * num < len(files) <= 2 * num
    assert annotated.images
    for image_ in annotated.images:
        for item in image_.objects:
            x1, y1, x2, y2 = item.box
            assert 0 <= x1 < x2 <= 60, image_.image_id
            assert 0 <= y1 < y2 <= 40, image_.image_id
    if num <= 100:  # comparing thousands of equal images is no part of this
        assert check_annotated(annotated).num_images == num


@pytest.mark.slow
def test_a_mutated_annotation_never_ends_in_a_traceback(tmp_path):
    folder = VOCFolder(tmp_path / "set")
    folder.add("a", image=photo(suffix=".jpg"))
    folder.split("train", "a")
    for number in range(500):
        data = mutated(ANNOTATIONS, XML, 10_000 + number)
        (folder.annotations / "a.xml").write_bytes(data)
        in_time(number, check_voc, folder.root, ["train"])
        in_time(number, read_annotated_voc, folder.root)


BOMB = (
    '<!DOCTYPE annotation [<!ENTITY a "aaaaaaaaaa">'
    + "".join(
        f'<!ENTITY {y} "{f"&{x};" * 10}">' for x, y in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + "]>"
)


@pytest.mark.parametrize(
    ("xml", "rule"),
    [
        (BOMB + annotation_xml(object_xml("&i;"), head=""), "forbidden-xml"),
        ("<annotation>" + "<part>" * 200_000 + "</part>" * 200_000 + "</annotation>", None),
        ("<annotation>" + "<part>" * 200_000, "malformed-xml"),
        ("<annotation " + " ".join(f'a{n}="1"' for n in range(20_000)) + "/>", None),
        (annotation_xml(object_xml("x" * 1_000_000)), None),
        (annotation_xml(object_xml("dog", ("9" * 1_000_000, 3, 20, 30))), "not-a-number"),
        (annotation_xml(object_xml("dog", (2, 3, "1e308", 30))), "box-outside-image"),
        (annotation_xml(object_xml("dog", (2, 3, "1e-400", 30))), "inverted-box"),
        (annotation_xml(size=(10**400, 60)), "not-a-number"),
        (annotation_xml(size=(1e300, 60)), "size-mismatch"),
        ("\0" * 100_000, "malformed-xml"),
        ("", "malformed-xml"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_annotations_that_somebody_would_think_of(tmp_path, xml, rule):
    folder = VOCFolder(tmp_path / "set")
    folder.add("a", xml, photo(suffix=".jpg"))
    folder.split("train", "a")
    report = in_time("", check_voc, folder.root)
    assert rule is None or rule in {fault.rule for fault in report.faults}
    assert all(len(str(fault)) < 2_000_000 for fault in report.faults)
    in_time("", read_annotated_voc, folder.root)


# ---- images ---------------------------------------------------------------------------------


@pytest.mark.parametrize("num", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_mutated_jpegs(tmp_path, num):
    sources = [encoded(scene(0)), encoded(scene(1, (75, 101)), quality=60)]
    path = tmp_path / "a.jpg"
    outcomes = []
    for number in range(num):
        path.write_bytes(mutated(sources, JPEG, number))
        header = in_time(number, read_image_header, path)
        size = in_time(number, verify_image, path)
        image = in_time(number, read_image, path)
        # one judgment of all readers, except that a header knows nothing of what follows it
        assert isinstance(size, ImageError) or not isinstance(header, ImageError), number
        if not isinstance(image, ImageError):
            assert image.shape == (*header.size, 3), number
            assert image.dtype == np.uint8
        outcomes.append(isinstance(size, ImageError))
    assert 0.2 * num < sum(outcomes) < 0.95 * num  # neither all broken nor all whole


def jpeg_claiming(width, height):
    """A whole JPEG whose frame header (ITU-T T.81, B.2.2) lies about its size."""
    data = bytearray(encoded(scene(0)))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def png_claiming(width, height):
    data = bytearray(encoded(scene(0), ".png"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def bmp_claiming(width, height):
    data = bytearray(encoded(scene(0), ".bmp"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


CLAIMS = {"jpg": jpeg_claiming, "png": png_claiming, "bmp": bmp_claiming}


@pytest.mark.parametrize("suffix", CLAIMS)
def test_a_header_that_claims_billions_of_pixels(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(CLAIMS[suffix](50_000, 50_000))
    in_time("warm up", read_image, path)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    for read in (read_image_header, verify_image, read_image):
        start = time.perf_counter()
        with pytest.raises(ImageError, match="the header claims 50,000 by 50,000 pixels"):
            read(path)
        assert time.perf_counter() - start < 0.5  # milliseconds
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20
    # of decoders, which Python does not see: in KiB on Linux, in bytes on the Mac
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident
    assert grown * (1 if sys.platform == "darwin" else 1024) < 2**26


@pytest.mark.parametrize("size", [(0, 0), (0, 100), (100, 0), (3, 5), (160, 1000)])
@pytest.mark.parametrize("suffix", CLAIMS)
def test_headers_that_lie(tmp_path, suffix, size):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(CLAIMS[suffix](*size))
    for read in (read_image_header, verify_image, read_image):
        in_time(size, read, path)


@pytest.mark.slow
def test_decoders_survive_rubbish_in_a_process_of_their_own(tmp_path):
    # a crash in a decoder would end the tests; here it ends a process, whose status tells
    sources = [encoded(scene(0), suffix) for suffix in (".png", ".webp", ".bmp", ".tiff", ".ppm")]
    for number in range(60):
        (tmp_path / f"{number}").write_bytes(mutated(sources, JPEG, number))
    code = (
        "import sys, pathlib\n"
        "from detect.data.images import ImageError, read_image, verify_image\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    for read in (read_image, verify_image):\n"
        "        try:\n"
        "            read(path)\n"
        "        except ImageError:\n"
        "            pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=120,
        cwd=REPOSITORY, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


# ---- configs ----------------------------------------------------------------------------------

CONFIGS = [file for name, file in shipped_configs().items() if "/" not in name]


@pytest.mark.parametrize("num", [100, pytest.param(500, marks=pytest.mark.slow)])
def test_mutated_configs(tmp_path, num):
    sources = [path.read_bytes() for path in CONFIGS if not path.name.startswith("pretrain")]
    path = tmp_path / "a.yaml"
    outcomes = []
    for number in range(num):
        path.write_bytes(mutated(sources, YAML, number))
        outcome = in_time(number, load_config, path)
        outcomes.append(isinstance(outcome, DetectError))
        if isinstance(outcome, DetectError):
            assert str(path) in str(outcome), number
            assert len(str(outcome)) < 100_000, number
    assert 0.3 * num < sum(outcomes) < num


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("seed: !!timestamp 1", "'1' is no value of the type timestamp"),
        ("seed: !!bool x", "'x' is no value of the type bool"),
        ("seed: !!int ''", "'' is no value of the type int"),
        ("seed: !!float ''", "'' is no value of the type float"),
        ("seed: " + "9" * 6000, "is no value of the type int"),
        ("seed: 0x" + "f" * 6000, "more than 300 digits"),
        ("seed: " + "1:" * 3000 + "1", "more than 300 digits"),
        ('data: {root: "\\ud800"}', "half of a character"),
        ("data: &a\n  root: *a", "an alias stands within the value that it names"),
        ("data: &a\n  <<: *a", "an alias stands within the value that it names"),
        ("data: " + "{a: " * 3000, "nested too deeply"),
        (laughs("list"), "more than 200,000 values"),
        (laughs("map"), "more than 200,000 values"),
        (laughs("map").replace("k0: *", "<<: *"), "more than 200,000 values"),
        ("detector: {name: [yolo]}", "unknown detector"),
        ("detector: {name: {a: 1}}", "unknown detector"),
        ("backbone: {name: [1]}", "valid string"),
        ("data: {root: [" + "1, " * 5000 + "]}", "valid string"),
    ],
    ids=lambda value: value[:25],
)
def test_configs_that_somebody_would_think_of(tmp_path, text, complaint):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    error = in_time("", load_config, path)
    assert isinstance(error, DetectError)
    assert complaint in str(error)
    if "\n" not in text and "nested" not in complaint:
        assert f"{path}:1: " in str(error)


def test_overrides_that_somebody_would_think_of(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("seed: 1")
    for setting in (
        "seed=!!bool x",
        "seed=" + "[" * 3000,
        "seed=0x" + "f" * 6000,
        "detector.name=[1]",
    ):
        assert isinstance(in_time(setting[:20], load_config, path, [setting]), DetectError)


def test_lines_of_merged_mappings_stay():
    node, values = parse_yaml("a: &a {x: 1}\nb:\n  <<: *a\n  y: 2\n")
    assert values == {"a": {"x": 1}, "b": {"x": 1, "y": 2}}
    assert [key.value for key, _ in node.value[1][1].value] == ["<<", "y"]


def test_an_alias_may_be_used_often():
    text = "a: &a [1, 2]\n" + "".join(f"k{n}: *a\n" for n in range(1000))
    assert len(parse_yaml(text)[1]) == 1001
    with pytest.raises(BrokenYAMLError) as caught:
        parse_yaml("a: 1\nb: [1")
    assert caught.value.line == 2


# ---- the other formats of data sets -----------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "file", "kinds"),
    [
        (write_coco, "annotations/instances_train.json", JSON),
        (write_yolo, "labels/train/000000.txt", (*ANY, change_number, change_number)),
        (write_yolo, "data.yaml", YAML),
    ],
    ids=["coco", "yolo", "data.yaml"],
)
@pytest.mark.parametrize("num", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_mutated_sets_of_other_formats(tmp_path, write, file, kinds, num):
    write(tmp_path, numbers=range(4))
    source = (tmp_path / file).read_bytes()
    outcomes = []
    for number in range(num):
        (tmp_path / file).write_bytes(mutated([source], kinds, number))
        annotated = in_time(number, read_annotated, tmp_path)
        outcomes.append(isinstance(annotated, DetectError) or bool(annotated.faults))
        if not isinstance(annotated, DetectError):
            in_time(number, check_annotated, annotated)
    assert sum(outcomes) > 0.3 * num


def test_a_size_of_hundreds_of_digits(tmp_path):
    contents, categories = write_coco(tmp_path, numbers=range(2))
    contents["train"]["images"][0]["height"] = 10**400
    file = tmp_path / "annotations/instances_train.json"
    file.write_text(json.dumps({**contents["train"], "categories": categories}))
    (fault,) = read_annotated(tmp_path).faults
    assert fault.rule == "bad-size"
