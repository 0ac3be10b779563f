import pytest

from detect.wording import counted, duration, listed, shortened


@pytest.mark.parametrize(
    ("number", "noun", "words"),
    [
        (1, "image", "1 image"),
        (0, "image", "0 images"),
        (1200, "image", "1,200 images"),
        (2, "class", "2 classes"),
        (2, "faulty box", "2 faulty boxes"),
        (3, "batch", "3 batches"),
        (3, "epoch", "3 epochs"),
        (2, "category", "2 categories"),
        (2, "key", "2 keys"),
    ],
)
def test_a_count_has_its_noun_in_the_right_number(number, noun, words):
    assert counted(number, noun) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (123, "2 min 3 s"),
        (3599.7, "1 h"),
        (3600 + 12 * 60 + 20, "1 h 12 min"),
        (26 * 3600, "26 h"),
    ],
)
def test_a_duration_has_the_units_that_matter(seconds, words):
    assert duration(seconds) == words


def test_a_long_list_says_how_many_are_missing():
    assert listed(["a", "b"]) == "a, b"
    assert listed(["a", "b", "c"], 2) == "a, b and 1 more"


def test_a_long_text_loses_its_middle():
    assert shortened("layer1.conv", 11) == "layer1.conv"
    assert shortened("layer1.conv", 8) == "laye…onv"
