import pytest

from detect.errors import DetectError
from detect.registry import Registry, hint, nearest


@pytest.fixture
def shapes():
    registry = Registry("shape")
    for name in ("circle", "Square", "triangle"):
        registry.register(name)(name.upper())
    return registry


def test_an_entry_is_found_by_its_name(shapes):
    assert shapes["circle"] == "CIRCLE"
    assert "circle" in shapes
    assert "circel" not in shapes
    assert list(shapes) == ["circle", "Square", "triangle"]
    assert len(shapes) == 3


def test_register_gives_the_object_back():
    registry = Registry("thing")

    @registry.register("one")
    def one():
        return 1

    assert one() == 1
    assert registry["one"] is one


def test_a_name_is_registered_once(shapes):
    with pytest.raises(ValueError, match="shape 'circle' is registered already"):
        shapes.register("circle")
    assert shapes["circle"] == "CIRCLE"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("circel", "unknown shape 'circel'; did you mean 'circle'?"),
        ("square", "unknown shape 'square'; did you mean 'Square'?"),
        ("xyz", "unknown shape 'xyz'; there are: Square, circle, triangle"),
    ],
)
def test_an_unknown_name_gets_help(shapes, name, message):
    with pytest.raises(DetectError) as caught:
        shapes[name]
    assert str(caught.value) == message


def test_nearest_ignores_case_and_is_limited():
    assert nearest("DOG", ["cat", "dog", "dogs"]) == ["dog"]
    assert len(nearest("dog", ["dog1", "dog2", "dog3", "dog4"], count=2)) == 2
    assert nearest("zebra", ["cat", "dog"]) == []
    assert nearest("dog", []) == []


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("circel", ("square", "circle"), "did you mean 'circle'?"),
        ("colour", ("color", "colours"), "did you mean 'colours' or 'color'?"),
        ("x", ("square", "circle"), "there are: square, circle"),
        ("x", (), "there are none"),
        ("x", [f"number {n}" for n in range(50)], ", number 39, …"),
    ],
)
def test_a_hint_has_the_nearest_names_or_all(name, known, expected):
    found = hint(name, known)
    assert found.endswith(expected)
    assert found.startswith(expected) or len(known) == 50
