"""The Python of the documentation runs: each page's blocks in order, on a small drawn set."""

import re
import shutil
from pathlib import Path

import pytest

import detect

DOCS = Path(__file__).parent.parent / "docs"
PAGES = ["python.md", "training.md", *sorted(page.name for page in DOCS.glob("own_*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages speak of: `data/shapes`, `runs/mine`, `photo.jpg` and `photos`."""
    folder = tmp_path_factory.mktemp("docs")
    shapes = folder / "data" / "shapes"
    detect.read_dataset(shapes, "train", kind="shapes", num_images=60)  # draws it
    (folder / "photos").mkdir()
    for image in sorted((shapes / "JPEGImages").iterdir())[:4]:
        shutil.copy(image, folder / "photos")
    shutil.copy(image, folder / "photo.jpg")
    data = {"root": shapes, "num_images": 60, "num_workers": 0}
    detect.train(
        "yolo_tiny_shapes",
        data=data,
        out=folder / "runs" / "mine",
        training={"epochs": 1},
        progress=False,
    )
    return folder


def blocks_of(page: Path) -> list[tuple[int, str]]:
    """The line and the code of each block of Python."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, m.start()) + 1, m[1]) for m in BLOCK.finditer(text)]


def run(page: Path) -> None:
    names: dict[str, object] = {"__name__": "__main__"}
    for line, code in blocks_of(page):
        # the traceback of a failure has the page's own line
        exec(compile("\n" * line + code, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run_in_order(page: str, place: Path, monkeypatch):
    monkeypatch.chdir(place)
    for registry in (detect.BACKBONES, detect.DATASETS, detect.DETECTORS, detect.PROPOSALS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))  # what a page adds goes
    assert blocks_of(DOCS / page)
    run(DOCS / page)


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    notebook = nbformat.read(DOCS / "tutorial.ipynb", as_version=4)
    folder = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=folder).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 5


def test_the_tutorial_is_small():
    assert (DOCS / "tutorial.ipynb").stat().st_size <= 300_000


def test_a_block_that_fails_is_found(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("# A\n\n```python\nx = 1\n```\n\ntext\n\n```python\nassert x == 2\n```\n")
    with pytest.raises(AssertionError) as caught:
        run(page)
    assert caught.traceback[-1].lineno == 9  # counted from 0: line 10 of the page


@pytest.mark.parametrize("page", sorted(page.name for page in DOCS.glob("*.md")))
def test_links_between_pages_lead_somewhere(page: str):
    links = LINK.findall(BLOCK.sub("", (DOCS / page).read_text(encoding="utf-8")))
    missing = [link for link in links if not (DOCS / link).exists()]
    assert missing == []


def test_the_page_names_all_that_the_package_offers():
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    table = text[: text.index("## Predict")]
    assert set(detect.__all__) <= set(re.findall(r"`(\w+)`", table))
