import json
import os
import stat

import pytest

from detect.errors import DetectError
from detect.files import read_json, replacing, write_json, write_text


def test_text_is_written_as_utf8_into_new_folders(tmp_path):
    path = tmp_path / "a" / "b" / "text.txt"
    write_text(path, "größer\n")
    assert path.read_bytes() == "größer\n".encode()
    assert [entry.name for entry in path.parent.iterdir()] == ["text.txt"]


def test_a_failed_writer_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "text.txt"
    write_text(path, "old")

    def write_half():
        with replacing(path) as temporary:
            temporary.write_text("new, but only ha")
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        write_half()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["text.txt"]


def test_readers_see_the_old_content_until_the_end(tmp_path):
    path = tmp_path / "model.pt"
    write_text(path, "old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent  # a rename within one file system
        assert temporary.suffix == ".pt"  # some writers go by the suffix
    assert path.read_text() == "new"
    assert not temporary.exists()


def test_the_user_decides_who_may_read(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "text.txt", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "text.txt").stat().st_mode) == 0o640


def test_a_folder_that_cannot_be_made_is_a_readable_error(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "text.txt"
    with pytest.raises(DetectError, match=r"text\.txt: cannot be written: "):
        write_text(path, "")


def test_json_comes_back_with_null_for_nan(tmp_path):
    content = {"a": [1, 2.5, float("nan")], "b": {"c": (float("nan"), "ß")}, 3: None}
    write_json(tmp_path / "a.json", content)
    expected = {"a": [1, 2.5, None], "b": {"c": [None, "ß"]}, "3": None}
    assert read_json(tmp_path / "a.json") == expected
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == expected


def test_json_refuses_infinity_and_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", [float("inf")])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1,]", b"\xef\xbb\xbf{}"])
def test_what_is_no_json_is_a_readable_error(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DetectError, match=r"a\.json: expected JSON: "):
        read_json(path)


def test_json_that_is_nested_too_deeply_is_a_readable_error(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[" * 100_000)
    with pytest.raises(DetectError, match="nested too deeply"):
        read_json(path)


def test_a_missing_file_is_a_readable_error(tmp_path):
    with pytest.raises(DetectError, match=r"a\.json: cannot be read: No such file"):
        read_json(tmp_path / "a.json")
    with pytest.raises(DetectError, match="cannot be read: Is a directory"):
        read_json(tmp_path)
