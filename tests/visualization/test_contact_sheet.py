import cv2
import numpy as np
import pytest

from detect.errors import DetectError
from detect.visualization import contact_sheet, save_image

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def filled(height: int, width: int, color: tuple[int, int, int]) -> np.ndarray:
    return np.full((height, width, 3), color, dtype=np.uint8)


def rectangle_of(sheet: np.ndarray, color: tuple[int, int, int]) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero((sheet == np.array(color)).all(axis=2))
    assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1), "not one filled rectangle"
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_images_are_fitted_and_keep_their_aspect():
    images = [filled(50, 100, RED), filled(300, 150, GREEN), filled(64, 64, BLUE)]
    sheet = contact_sheet(images, columns=2, cell_size=64, margin=8)
    assert rectangle_of(sheet, RED) == (8, 8, 72, 40)
    assert rectangle_of(sheet, GREEN) == (80 + 16, 8, 80 + 48, 72)  # in the middle of its cell
    assert rectangle_of(sheet, BLUE) == (8, 80, 72, 144)
    assert sheet.shape == (152, 152, 3)


def test_captions_stand_below_their_images():
    images = [filled(64, 64, RED), filled(64, 64, GREEN)]
    bare = contact_sheet(images, columns=2, cell_size=64)
    sheet = contact_sheet(images, ["one", "two"], columns=2, cell_size=64)
    assert rectangle_of(sheet, RED) == rectangle_of(bare, RED)
    below = sheet[72:-8]
    for cell in (below[:, 8:72], below[:, 80:144]):
        ink = cell.min(axis=2) < 128
        assert ink.any()
        columns = np.nonzero(ink.any(axis=0))[0]
        assert abs(columns.mean() - 32) < 5  # centered
    assert (below[:, 72:80] == 255).all()
    other = contact_sheet(images, ["one", "three"], columns=2, cell_size=64)
    np.testing.assert_array_equal(other[:, :76], sheet[:, :76])
    assert (other[:, 76:] != sheet[:, 76:]).any()


def test_long_captions_stay_in_their_cell():
    images = [filled(64, 64, RED), filled(64, 64, GREEN)]
    sheet = contact_sheet(
        images, ["a caption much wider than an image", ""], columns=2, cell_size=64
    )
    assert (sheet[72:, 73:] == 255).all()
    assert (sheet[72:, :72] < 128).any()


def test_title_stands_above():
    images = [filled(64, 64, RED)]
    sheet = contact_sheet(images, cell_size=64, title="held out")
    top = rectangle_of(sheet, RED)[1]
    assert top > 8
    assert (sheet[:top] < 128).any()
    assert sheet.shape[0] - top == contact_sheet(images, cell_size=64).shape[0] - 8


@pytest.mark.parametrize(("num_images", "columns"), [(1, 1), (2, 2), (12, 4), (24, 6), (25, 6)])
def test_default_columns(num_images, columns):
    sheet = contact_sheet([filled(8, 8, RED)] * num_images, cell_size=8, margin=2)
    assert sheet.shape[1] == 2 + columns * 10
    assert sheet.shape[0] == 2 + -(-num_images // columns) * 10


def test_faults_of_the_caller_are_named():
    with pytest.raises(ValueError, match="at least one image"):
        contact_sheet([])
    with pytest.raises(ValueError, match="each of 1 images, found 2"):
        contact_sheet([filled(8, 8, RED)], ["a", "b"])
    with pytest.raises(ValueError, match="found 0, 256"):
        contact_sheet([filled(8, 8, RED)], columns=0)


@pytest.mark.parametrize("name", ["a.png", "b.jpg", "c.jpeg", "D.JPG", "new/folder/ü.png"])
def test_saved_images_come_back(tmp_path, name):
    image = np.zeros((32, 48, 3), dtype=np.uint8)
    image[:, :24] = (200, 100, 20)
    save_image(tmp_path / name, image)
    content = np.frombuffer((tmp_path / name).read_bytes(), np.uint8)
    back = cv2.imdecode(content, cv2.IMREAD_COLOR)[:, :, ::-1]
    if name.endswith(".png"):
        assert content[1:4].tobytes() == b"PNG"
        np.testing.assert_array_equal(back, image)
    else:
        assert content[:2].tobytes() == b"\xff\xd8"
        assert np.abs(back[:, :16].astype(int) - image[:, :16]).max() <= 3
    assert len(list((tmp_path / name).parent.iterdir())) == 1, "a temporary file was left"


@pytest.mark.parametrize("name", ["a.gif", "a", "a.png.txt"])
def test_unknown_suffixes_are_refused(tmp_path, name):
    with pytest.raises(DetectError, match=r"expected an image file with the suffix \.png"):
        save_image(tmp_path / name, filled(8, 8, RED))
    assert not list(tmp_path.iterdir())
