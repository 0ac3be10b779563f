import csv
import json

import pytest

from detect.errors import DetectError
from detect.training.journal import Journal, read_journal


def steps_in(path):
    return [json.loads(line)["step"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_line_is_an_object(tmp_path):
    path = tmp_path / "new" / "metrics.jsonl"
    journal = Journal(path)
    journal.write(kind="train", step=1, terms={"object": 0.5})
    Journal(path).write(kind="evaluation", step=1, map_area=None)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"kind": "train", "step": 1, "terms": {"object": 0.5}},
        {"kind": "evaluation", "step": 1, "map_area": None},
    ]


def after(step):
    return lambda line: line["step"] > step


def test_later_steps_are_forgotten(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl")
    for step in (1, 2, 2, 3, 4):
        journal.write(step=step)
    journal.forget(after(2))
    assert steps_in(journal.path) == [1, 2, 2]
    journal.write(step=3)
    assert steps_in(journal.path) == [1, 2, 2, 3]


def test_a_torn_last_line_is_forgotten(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.write(kind="train", step=1)
    journal.write(kind="train", step=2)
    whole = journal.path.read_text()
    for length in range(len(whole) // 2 + 1, len(whole) - 1):
        journal.path.write_text(whole[:length])
        journal.forget(after(9))
        journal.write(kind="train", step=2)
        expected = [1, 2, 2] if length == len(whole) - 1 else [1, 2]
        assert steps_in(journal.path) == expected
        left = [entry.name for entry in tmp_path.iterdir() if entry.name != "tensorboard"]
        assert left == ["metrics.jsonl"]


def test_a_whole_last_line_without_its_end_is_kept(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.write(step=1)
    journal.path.write_text(journal.path.read_text().rstrip("\n"))
    journal.forget(after(1))
    journal.write(step=2)
    assert steps_in(journal.path) == [1, 2]


def test_without_a_file_there_is_nothing_to_forget(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.forget(after(0))
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [
        {"kind": "train", "step": 1, "terms": {"object": 0.5}},
        {"kind": "evaluation", "step": 1, "map_area": None},
        {"kind": "phase", "phase": "one\u2028two", "step": 2, "seconds": 1.5},
    ]
    for line in lines:
        Journal(path).write(**line)
    assert list(read_journal(path)) == lines


def test_without_a_file_there_is_nothing_to_read(tmp_path):
    assert list(read_journal(tmp_path / "metrics.jsonl")) == []
    (tmp_path / "empty.jsonl").write_text("")
    assert list(read_journal(tmp_path / "empty.jsonl")) == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["empty.jsonl"]


def test_a_torn_last_line_is_passed_over(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl")
    first, second = {"kind": "train", "step": 1}, {"kind": "train", "step": 2}
    journal.write(**first)
    length = len(journal.path.read_text())
    journal.write(**second)
    whole = journal.path.read_text()
    for end in range(length, len(whole) + 1):
        journal.path.write_text(whole[:end])
        # without its line end alone, the last line is whole
        expected = [first, second] if end >= len(whole) - 1 else [first]
        assert list(read_journal(journal.path)) == expected
        assert journal.path.read_text() == whole[:end]  # reading changes nothing


def test_lines_of_no_kind_are_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    kept = '{"kind": "train", "step": 3}'
    path.write_text("\n".join(["7", '["kind"]', '"kind"', "null", '{"step": 1}', "", kept]))
    assert list(read_journal(path)) == [{"kind": "train", "step": 3}]


def test_the_table_has_a_column_for_each_number(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.write(kind="train", step=1, terms={"object": 0.5, "classes": 2.0})
    journal.write(kind="evaluation", step=1, map_area=None)
    journal.write(kind="train", step=2, terms={"object": 0.25, "classes": 1.0})
    journal.write_table()
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["train", "evaluation", "train"]
    assert [row["terms/object"] for row in rows] == ["0.5", "", "0.25"]
    assert rows[1]["map_area"] == ""


def test_processes_that_do_not_write_leave_nothing(tmp_path):
    journal = Journal(tmp_path / "run" / "metrics.jsonl", is_writing=False)
    journal.write(kind="train", step=1)
    journal.write_table()
    journal.forget(after(0))
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_gets_the_numbers(tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    journal = Journal(tmp_path / "metrics.jsonl")
    for step in (1, 2):
        journal.write(kind="train", step=step, epoch=1, phase="train", terms={"object": 1 / step})
    journal.close()
    accumulator = EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    assert accumulator.Tags()["scalars"] == ["train/terms/object"]
    events = accumulator.Scalars("train/terms/object")
    assert [(event.step, event.value) for event in events] == [(1, 1.0), (2, 0.5)]


def test_without_tensorboard_nothing_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.write(kind="train", step=1, loss=1.0)
    journal.write(kind="train", step=2, loss=1.0)
    journal.close()
    assert steps_in(journal.path) == [1, 2]
    assert not (tmp_path / "tensorboard").exists()


def test_a_full_disk_is_a_readable_error(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.path.symlink_to("/dev/full")
    with pytest.raises(DetectError, match=r"metrics\.jsonl: cannot be written: No space left"):
        journal.write(kind="train", step=1)
