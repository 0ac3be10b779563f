import json

from detect.training.journal import Journal


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


def test_later_steps_are_forgotten(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl")
    for step in (1, 2, 2, 3, 4):
        journal.write(step=step)
    journal.forget_after(2)
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
        journal.forget_after(9)
        journal.write(kind="train", step=2)
        expected = [1, 2, 2] if length == len(whole) - 1 else [1, 2]
        assert steps_in(journal.path) == expected
        assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_whole_last_line_without_its_end_is_kept(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.write(step=1)
    journal.path.write_text(journal.path.read_text().rstrip("\n"))
    journal.forget_after(1)
    journal.write(step=2)
    assert steps_in(journal.path) == [1, 2]


def test_without_a_file_there_is_nothing_to_forget(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.forget_after(0)
    assert list(tmp_path.iterdir()) == []
