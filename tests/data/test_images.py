import io
import os
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from detect.data import (
    MAX_IMAGE_PIXELS,
    ImageError,
    images,
    read_image,
    read_image_header,
    read_image_size,
    verify_image,
)
from detect.errors import DetectError

READERS = (read_image, read_image_size, verify_image)
DECODERS = (read_image, verify_image)


def quadrants(height=40, width=64):
    """An image that no flip and no rotation leaves as it is."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = (250, 10, 20)
    image[: height // 2, width // 2 :] = (30, 240, 50)
    image[height // 2 :, : width // 2] = (60, 70, 230)
    return image


def noise(height=100, width=120):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image, file_format, **options):
    buffer = io.BytesIO()
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def written(folder, data, name="image.jpg"):
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "PPM", "WebP"])
def test_content_decides_and_not_the_suffix(tmp_path, file_format):
    options = {"lossless": True} if file_format == "WebP" else {}
    path = written(tmp_path, encoded(noise(), file_format, **options), "image.jpg")
    np.testing.assert_array_equal(read_image(path), noise())
    assert read_image_size(path) == verify_image(path) == (100, 120)


def test_jpeg_is_read_as_rgb(tmp_path):
    path = written(tmp_path, encoded(quadrants(), "JPEG", quality=100, subsampling=0))
    image = read_image(path)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - quadrants())[:, [5, -5]].max() < 12
    assert verify_image(path) == (40, 64)


def test_gif_gives_its_first_frame(tmp_path):
    frames = [Image.fromarray(np.full((9, 12, 3), value, np.uint8)) for value in (40, 200)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (read_image(written(tmp_path, data)) == 40).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WebP", "TIFF"])
def test_exif_orientation_is_applied_as_pillow_does(tmp_path, file_format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WebP": {"lossless": True}}
    data = encoded(quadrants(), file_format, exif=exif, **options.get(file_format, {}))
    path = written(tmp_path, data)
    expected = np.array(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    image = read_image(path)
    assert image.flags["C_CONTIGUOUS"]
    assert image.shape == expected.shape
    # JPEG decoders differ by a little; a wrong turn differs by hundreds
    assert np.abs(image.astype(int) - expected).max() <= 8
    assert read_image_size(path) == verify_image(path) == image.shape[:2]
    stored = image.shape[:2] if file_format == "TIFF" else (40, 64)
    assert read_image_header(path).stored_size == stored


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")
@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"x"])
def test_broken_exif_is_taken_for_none(tmp_path, exif):
    path = written(tmp_path, encoded(quadrants(), "JPEG", exif=exif))
    assert read_image(path).shape == (40, 64, 3)
    assert read_image_size(path) == (40, 64)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_impossible_orientation_is_taken_for_upright(tmp_path, value):
    exif = Image.Exif()
    exif[0x0112] = value
    path = written(tmp_path, encoded(quadrants(), "PNG", exif=exif))
    np.testing.assert_array_equal(read_image(path), quadrants())
    assert read_image_header(path).orientation == 1


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_every_kind_of_pixel_becomes_rgb(tmp_path, mode):
    source = Image.fromarray(quadrants()).convert(mode)
    file_format = "JPEG" if mode == "CMYK" else "PNG"
    options = {"quality": 100, "subsampling": 0} if mode == "CMYK" else {}
    path = written(tmp_path, encoded(source, file_format, **options))
    image = read_image(path)
    assert image.dtype == np.uint8
    expected = np.array(source.convert("RGB")).astype(int)
    assert np.abs(image - expected).max() <= (10 if mode == "CMYK" else 0)
    assert verify_image(path) == (40, 64)


def test_sixteen_bits_keep_the_upper_eight(tmp_path):
    values = (np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)
    path = written(tmp_path, cv2.imencode(".png", values)[1].tobytes())
    expected = np.repeat((values >> 8)[..., None], 3, axis=2)
    assert np.abs(read_image(path).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("size", [1, 3, 7, 8, 9])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WebP", "BMP", "GIF"])
def test_tiny_images(tmp_path, file_format, size):
    path = written(tmp_path, encoded(noise(size, size + 1), file_format))
    assert read_image(path).shape == (size, size + 1, 3)
    assert verify_image(path) == read_image_size(path) == (size, size + 1)


def test_names_outside_ascii(tmp_path):
    path = written(tmp_path, encoded(noise(), "PNG"), "Bäume 木 🌲.jpg")
    assert read_image(path).shape == (100, 120, 3)


@pytest.mark.parametrize("read", READERS)
def test_faulty_paths(tmp_path, read):
    with pytest.raises(ImageError, match="there is no such file"):
        read(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="found a folder"):
        read(tmp_path)
    with pytest.raises(ImageError, match="the file is empty"):
        read(written(tmp_path, b"", "empty.jpg"))
    with pytest.raises(ImageError, match="cannot be read"):
        read(tmp_path / "a\0b.jpg")
    with pytest.raises(ImageError, match="cannot be read"):
        read(tmp_path / ("n" * 300))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="no regular file"):
        read_image(tmp_path / "pipe.jpg")


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"hello, this is a note", "text that begins with 'hello, this is a note'"),
        ("Grüße aus Köln, wo es regnet".encode(), "text that begins with 'Grüße"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer; fetch the file"),
        (b"\n<!DOCTYPE html><html>404", "an HTML page"),
        (b'<?xml version="1.0"?><svg/>', "XML text"),
        (b"%PDF-1.7", "a PDF document"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "an HEIC image"),
        (bytes(range(128, 160)), "the bytes 80 81 82 83"),
        (b"BMW cars, a list", "begins like a BMP but its header is broken"),
        (b"\xff\xd8\xff", "begins like a JPEG but its header is broken"),
    ],
)
def test_strangers_are_named(tmp_path, read, data, expected):
    path = written(tmp_path, data)
    with pytest.raises(ImageError) as caught:
        read(path)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.value in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("read", DECODERS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WebP", {}),
        ("WebP", {"lossless": True}),
        ("BMP", {}),
    ],
)
def test_truncated_images(tmp_path, read, share, file_format, options):
    data = encoded(noise(), file_format, **options)
    path = written(tmp_path, data[: int(len(data) * share)])
    with pytest.raises(ImageError):
        read(path)


def test_truncation_is_told_even_where_the_decoder_is_silent():
    # Decoders fill the missing rows, of a JPEG for instance, without an error in some versions.
    for file_format in ("JPEG", "PNG"):
        data = encoded(noise(), file_format)
        assert images._is_truncated(data[: len(data) // 2], file_format)
        assert images._is_truncated(data[:-2], file_format)
        assert not images._is_truncated(data, file_format)


def test_jpeg_end_is_not_that_of_a_thumbnail(tmp_path):
    exif = b"Exif\0\0" + encoded(noise(20, 20), "JPEG")
    data = encoded(noise(), "JPEG", exif=exif)
    assert read_image(written(tmp_path, data)).shape == (100, 120, 3)
    with pytest.raises(ImageError, match="cut off"):
        read_image(written(tmp_path, data[: len(data) - 500]))


@pytest.mark.parametrize("progressive", [False, True])
def test_whatever_follows_the_end_of_a_jpeg_does_not_matter(tmp_path, progressive):
    # a phone appends a video, some cameras pad; a start of scan within is none of ours
    data = encoded(noise(), "JPEG", progressive=progressive)
    for tail in (bytes(100), b"\0\0\0\x18ftypmp42\xff\xda\xff\xc0" + b"video" * 50, b"\xff\xda"):
        assert read_image(written(tmp_path, data + tail)).shape == (100, 120, 3)


def png_of_size(width, height):
    """A PNG whose header claims a size that its few bytes don't hold."""
    data = bytearray(encoded(np.zeros((1, 1, 3), np.uint8), "PNG"))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize("read", READERS)
def test_a_giant_is_refused_by_its_header(tmp_path, read, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    path = written(tmp_path, png_of_size(50_000, 50_000))
    with pytest.raises(ImageError, match="claims 50,000 by 50,000 pixels"):
        read(path)


def test_the_limit_is_ours_and_not_that_of_pillow(tmp_path, recwarn):
    side = int(MAX_IMAGE_PIXELS**0.5)
    assert read_image_size(written(tmp_path, png_of_size(side, side))) == (side, side)
    assert not recwarn
    with pytest.raises(ImageError, match="claims"):
        read_image_size(written(tmp_path, png_of_size(side, side + 1)))


def test_header_that_the_data_contradict(tmp_path, monkeypatch):
    path = written(tmp_path, encoded(noise(), "PNG"))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: noise(50, 50))
    with pytest.raises(ImageError, match=r"header says \(100, 120\).*data \(50, 50\)"):
        read_image(path)


def test_error_is_made_from_its_message_alone():
    # a data loader hands an error out of its worker process that way
    error = ImageError("image.jpg: the file is empty")
    assert isinstance(error, DetectError)
    assert str(error) == "image.jpg: the file is empty"


def test_opencv_keeps_quiet(tmp_path, capfd):
    path = written(tmp_path, encoded(noise(), "TIFF")[:20_000])
    with pytest.raises(ImageError):
        read_image(path)
    assert capfd.readouterr().err == ""


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WebP", "BMP", "GIF", "TIFF", "PPM"])
def test_mutated_images_give_an_image_or_one_error(tmp_path, file_format):
    generator = np.random.default_rng(0)
    data = encoded(noise(24, 30), file_format)
    for _ in range(100):
        broken = bytearray(data)
        for position in generator.integers(0, min(len(data), 200), 4):
            broken[position] = generator.integers(256)
        path = written(tmp_path, bytes(broken[: generator.integers(1, len(data) + 1)]))
        for read in READERS:
            try:
                found = read(path)
            except ImageError:
                continue
            assert found.ndim == 3 if read is read_image else min(found) > 0
