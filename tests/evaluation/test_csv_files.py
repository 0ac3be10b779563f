from pathlib import Path

import pytest
import torch

from detect.errors import DetectError
from detect.evaluation import (
    DetectionSet,
    read_detections,
    read_detections_csv,
    write_detections_csv,
)
from detect.structures import Detections

IDS = ("1", "2, the second", "3")
HEADER = "image_id,class,score,x1,y1,x2,y2\n"


def records(seed, count=60):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 10 ** (
        torch.rand(count, 1, generator=generator) * 8 - 4
    )
    boxes = torch.cat((corners, corners + torch.rand(count, 2, generator=generator)), dim=1)
    scores = torch.randn(count, generator=generator)
    scores[3:6] = scores[2]
    return Detections.sorted(boxes, scores, torch.arange(count) % 2)


def write(folder, text):
    path = folder / "found.csv"
    path.write_bytes(text.encode())
    return path


def test_what_is_written_is_read_again_bit_by_bit(tmp_path):
    names = ("cat", 'the "big", dog')
    written = DetectionSet(names, IDS, (records(1), Detections.empty(), records(2)))
    path = tmp_path / "found.csv"
    for files in (None, [Path(f"{number}.jpg") for number in range(3)]):
        write_detections_csv(path, written, files)
        for read in (
            read_detections_csv(path, IDS, names),
            read_detections(path, "test", IDS).detections,
        ):
            assert (read.class_names, read.image_ids) == (names, IDS)
            for found, twin in zip(read.detections, written.detections, strict=True):
                assert torch.equal(found.boxes, twin.boxes)
                assert torch.equal(found.scores, twin.scores)
                assert torch.equal(found.labels, twin.labels)


def test_the_documented_form(tmp_path):
    found = Detections(
        torch.tensor([[0.1, 12.3, 20, 30.7]]), torch.tensor([0.9]), torch.tensor([1])
    )
    path = tmp_path / "found.csv"
    write_detections_csv(path, DetectionSet(("a", "größe"), ("7",), (found,)))
    assert path.read_text(encoding="utf-8") == HEADER + "7,größe,0.9,0.1,12.3,20.0,30.7\n"
    write_detections_csv(path, DetectionSet(("a", "b"), ("7",), (found,)), [Path("d/7.jpg")])
    assert path.read_text(encoding="utf-8").splitlines()[1].endswith("30.7,d/7.jpg")


def test_files_of_others_are_read(tmp_path):
    text = "\ufeffclass,x1, y1,x2,y2,score,image_id\r\ndog, 1,.5,2e1,+8., -0.5,3\r\n\r\n"
    found = read_detections_csv(write(tmp_path, text), IDS, ("cat", "dog")).detections[2]
    assert found.boxes.tolist() == [[1, 0.5, 20, 8]]
    assert found.scores.tolist() == [-0.5]
    assert found.labels.tolist() == [1]
    assert read_detections_csv(write(tmp_path, text), IDS).class_names == ("dog",)
    nothing = read_detections_csv(write(tmp_path, HEADER), IDS)
    assert [len(found) for found in nothing.detections] == [0, 0, 0]


def test_rows_of_equal_score_keep_their_order(tmp_path):
    rows = "".join(f"1,cat,0.5,{number},0,9,9\n" for number in (4, 2, 8, 6))
    first = read_detections_csv(write(tmp_path, HEADER + rows), IDS).detections[0]
    assert first.boxes[:, 0].tolist() == [4, 2, 8, 6]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("", "found an empty file"),
        ("image_id,class,score,x1,y1,x2,y2,x1\n", "found 'x1' twice"),
        ("image_id,class,score,x1,y1,x2\n", "y2 is missing in 'image_id,class"),
        ("image_id;class;score;x1;y1;x2;y2\n", "image_id, class, score, .* is missing"),
        ("image_id,class,score,x1,y1,x2,y2,size\n", "found the unknown 'size'"),
        ("1,cat,0.5,1,1,2,2\n", "image_id, class.* is missing in '1,cat"),
    ],
)
def test_a_faulty_header_is_named(tmp_path, header, message):
    with pytest.raises(
        DetectError, match=rf"found\.csv, line 1: expected the header .*: {message}.*; correct it"
    ):
        read_detections_csv(write(tmp_path, header), IDS)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,cat,0.5,1,1,2", "expected 7 fields as in the header, found 6"),
        ("1,cat,0.5,1,1,2,2,2", "expected 7 fields as in the header, found 8.*quote"),
        ("4,cat,0.5,1,1,2,2", "unknown image '4'"),
        ("1,cow,0.5,1,1,2,2", "unknown class 'cow'"),
        ("1,cat,nan,1,1,2,2", "score: expected a finite number, found 'nan'"),
        ("1,cat,0.5,1,inf,2,2", "y1: expected a finite number, found 'inf'"),
        ("1,cat,0.5,1,1,,2", "x2: expected a finite number, found ''"),
        ("1,cat,0.5,1,1,2_0,2", "x2: expected a finite number, found '2_0'"),
        ("1,cat,0.5,1,1,٢,2", "x2: expected a finite number"),
        ("1,cat,0.5,1,1,e,2", "x2: expected a finite number, found 'e'"),
        ("1,cat,0.5,5,1,2,2", "expected score, x1, y1, x2, y2 with x1 ≤ x2.*found 0.5 5 1 2 2"),
        ("1,cat,0.5,1,1,2,1e39", "all below 3e38"),
        ("1,cat,1e400,1,1,2,2", "all below 3e38"),
        ('1,cat,0.5,1,1,2,"2"x', "expected comma-separated values: .*expected after"),
        ("1,cat,0.5,1,1,2," + "2" * 200_000, "expected comma-separated values: field larger"),
    ],
)
def test_a_faulty_row_is_named(tmp_path, row, message):
    path = write(tmp_path, f"{HEADER}1,cat,0.5,1,1,2,2\n\n{row}\n3,cat,0.5,1,1,2,2\n")
    with pytest.raises(DetectError, match=rf"found\.csv, line 4: .*{message}"):
        read_detections_csv(path, IDS, ("cat", "dog"))


def test_what_is_no_text_is_a_readable_error(tmp_path):
    with pytest.raises(DetectError, match=r"absent\.csv: cannot be read: No such file"):
        read_detections_csv(tmp_path / "absent.csv", IDS)
    path = tmp_path / "a.csv"
    path.write_bytes(HEADER.encode() + b"\xff")
    with pytest.raises(DetectError, match="expected text in UTF-8"):
        read_detections_csv(path, IDS)
    path.write_text(HEADER + '1,cat,0.5,1,1,2,"2')
    with pytest.raises(DetectError, match="line 2: expected comma-separated values: unexpected"):
        read_detections_csv(path, IDS)
