import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from detect.data.checking import CheckReport, Finding
from detect.data.faults import Fault
from detect.visualization import check_page as module
from detect.visualization.check_page import check_page, write_check_page
from detect.visualization.fault_thumbnails import THUMBNAIL_SIDE, draw_finding, draw_view
from tests.data.checked_folder import SIZE, CheckedFolder, encoded
from tests.data.voc_folder import object_xml

RED = (230, 30, 30)


class Page(HTMLParser):
    """What is in a page: texts, tags with their attributes; tags must close in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "input", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return "".join(self.texts)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def report_of(*findings, root="set"):
    return CheckReport(Path(root), 5, 1, 9, ("cat", "dog"), findings)


def finding(rule="tiny-box", severity="warning", images=(), boxes=(), **fault):
    fields = {"file": "a.xml", "object": "object 1 (dog)", "value": "found", "remedy": "do"} | fault
    return Finding(Fault(rule=rule, severity=severity, **fields), images, boxes)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(np.full((100, 200, 3), 255, np.uint8), ".png"))
    return path


def close_to(view, color):
    """Where a view has a color, as a mask."""
    return np.abs(view.astype(int) - color).max(axis=-1) < 60


# ---- the page ---------------------------------------------------------------------------------


def test_page_of_a_set_with_faults(tmp_path):
    folder = CheckedFolder(tmp_path / "set")
    folder.write(3, object_xml("dog", (150, 30, 199, 60)))
    folder.image(1).write_bytes(folder.image(0).read_bytes())
    file = tmp_path / "page" / "faults.html"
    write_check_page(file, folder.check())
    page = Page(file.read_text(encoding="utf-8"))
    assert "16 images, 0 of them without an object" in page.text
    assert "1 error,\n1 warning." in page.text
    assert [link["href"] for link in page.all("a")] == ["#box-outside-image", "#identical-images"]
    assert [section["id"] for section in page.all("section")] == [
        "box-outside-image",
        "identical-images",
    ]
    assert len(page.all("img")) == 2
    assert {figure["class"] for figure in page.all("figure")} == {"error", "warning wide"}
    for image in page.all("img"):
        data = base64.b64decode(image["src"].removeprefix("data:image/jpeg;base64,"))
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is not None


def test_page_needs_nothing_else(photo):
    text = check_page(report_of(finding(images=(photo,))))
    assert not re.search(
        r"https?:|//|<script|<link|@import|url\(", re.sub(r"base64,[^\"]*", "", text)
    )
    policies = [meta["content"] for meta in Page(text).all("meta") if "content" in meta]
    assert any("default-src 'none'" in policy for policy in policies)


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '"><img src=x onerror=y>', "a & b"])
def test_all_text_is_escaped(text, tmp_path):
    bad = finding(rule=text, file=text, object=text, value=text, remedy=text)
    report = CheckReport(tmp_path / text.replace("/", ""), 1, 0, 1, (text,), (bad,))
    page = Page(check_page(report))
    assert page.all("script") == page.all("img") == []
    assert page.text.count(text) >= 5
    assert all("onerror" not in attributes for _, attributes in page.tags)


def test_names_that_are_no_utf8(tmp_path):
    name = b"caf\xe9.xml".decode("utf-8", "surrogateescape")
    write_check_page(tmp_path / "page.html", report_of(finding(file=name)))
    assert r"caf\udce9.xml" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_severities_can_be_told_apart():
    page = Page(check_page(report_of(finding(), finding("inverted-box", "error"))))
    classes = {section["id"]: section["class"] for section in page.all("section")}
    assert classes == {"inverted-box": "no-warning", "tiny-box": "no-error"}
    assert [item["class"] for item in page.all("li")] == ["error", "warning"]
    assert [button["id"] for button in page.all("input")] == ["all", "only-errors", "only-warnings"]


def test_images_and_lines_are_bounded(photo, monkeypatch):
    monkeypatch.setattr(module, "NUM_THUMBNAILS_PER_RULE", 3)
    monkeypatch.setattr(module, "NUM_LISTED_PER_RULE", 4)
    many = [finding(images=(photo,), value=f"number {number}") for number in range(10)]
    page = Page(check_page(report_of(*many)))
    assert (len(page.all("img")), len(page.all("li"))) == (3, 4)
    assert "tiny-box (10)" in page.text
    assert "and 3 more" in page.text
    monkeypatch.setattr(module, "NUM_THUMBNAILS", 2)
    assert len(Page(check_page(report_of(*many))).all("img")) == 2


def test_an_image_that_cannot_be_shown_is_listed(tmp_path):
    page = Page(check_page(report_of(finding(images=(tmp_path / "gone.jpg",)))))
    assert (page.all("img"), len(page.all("li"))) == ([], 1)


def test_page_without_findings():
    assert "No problems found." in Page(check_page(report_of())).text


# ---- the thumbnails ---------------------------------------------------------------------------


def test_the_meant_box_is_red_and_the_other_blue(photo):
    boxes = ((20.0, 20.0, 120.0, 80.0), (10.0, 10.0, 190.0, 90.0))
    view = draw_finding(finding(images=(photo,), boxes=boxes))
    assert view.shape == (THUMBNAIL_SIDE // 2, THUMBNAIL_SIDE, 3)
    scale = THUMBNAIL_SIDE / 200
    for color, (x1, y1, x2, y2) in ((RED, boxes[0]), ((30, 90, 230), boxes[1])):
        rows, columns = np.nonzero(close_to(view, color))
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.abs(np.array(found) - scale * np.array([x1, y1, x2, y2])).max() <= 2


def test_a_box_that_leaves_the_image_is_shown_with_what_is_around(photo):
    view = draw_finding(finding(images=(photo,), boxes=((150.0, 20.0, 230.0, 80.0),)))
    assert close_to(view, (200, 200, 200)).any()
    columns = np.nonzero(close_to(view, RED))[1]
    assert columns.max() < view.shape[1] - 1
    assert columns.max() > THUMBNAIL_SIDE * 200 / 232


@pytest.mark.parametrize(
    "box",
    [
        (20.0, 30.0, 20.0, 60.0),  # of no size
        (120.0, 80.0, 20.0, 20.0),  # inverted
        (-1e300, -5.0, 1e300, 50.0),  # mistyped
        (1e18, 1e18, 2e18, 2e18),
        (500.0, 500.0, 600.0, 600.0),
        (99.0, 49.0, 100.0, 50.0),  # tiny
        (0.0, 0.0, 200.0, 100.0),
    ],
)
def test_boxes_of_any_kind_are_drawn(photo, box):
    view = draw_finding(finding(images=(photo,), boxes=(box,)))
    assert max(view.shape) <= THUMBNAIL_SIDE
    if max(map(abs, box)) < 400:
        assert close_to(view, RED).any()


def test_a_small_box_is_shown_from_nearby():
    image = np.full((400, 600, 3), 255, np.uint8)
    view = draw_view(image, [(300.0, 200.0, 310.0, 210.0)])
    columns = np.nonzero(close_to(view, RED))[1]
    assert columns.max() - columns.min() >= 10  # 13 pixels instead of 4
    assert abs(columns.mean() - view.shape[1] / 2) < 5


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (3000, 2), SIZE])
def test_images_of_any_size_are_scaled(size):
    view = draw_view(np.zeros((*size, 3), np.uint8), [])
    assert max(view.shape) == THUMBNAIL_SIDE
    assert min(view.shape[:2]) >= 1


def test_two_images_side_by_side(photo, tmp_path):
    small = tmp_path / "small.png"
    small.write_bytes(encoded(np.zeros((50, 50, 3), np.uint8), ".png"))
    view = draw_finding(finding(images=(photo, small)))
    assert view.shape[0] == THUMBNAIL_SIDE
    assert view.shape[1] > 2 * THUMBNAIL_SIDE
