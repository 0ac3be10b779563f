"""Proposals of whole data sets, found once."""

import io

import numpy as np
import pytest
import torch
from rich.console import Console
from torch.testing import assert_close

from detect.backbones import create_backbone
from detect.data import draw_shapes, read_dataset
from detect.detectors import RCNN, YOLO
from detect.errors import DetectError
from detect.experiment import proposing
from detect.experiment.proposing import ProposedImages, find_proposals
from detect.proposals import Proposals, write_proposals

SILENT = Console(quiet=True, file=io.StringIO())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    draw_shapes(folder, num_images=12, seed=0, image_size=(64, 64), splits=(8, 2, 2))
    return folder


@pytest.fixture
def dataset(root):
    return read_dataset(root, "train")


def build(**options):
    settings = {"input_size": 96, "context": 4, "proposal_options": {"min_size": 8}, **options}
    return RCNN(create_backbone("tiny"), 3, **settings)


def test_they_are_found_once(dataset, tmp_path, monkeypatch):
    detector = build()
    found = find_proposals(detector, dataset, tmp_path, SILENT)
    assert found.image_ids == dataset.image_ids
    assert len(found[dataset.image_ids[0]]) > 10
    source = type(detector.proposal_source)
    monkeypatch.setattr(source, "__call__", lambda *_: pytest.fail("found again"))
    again = find_proposals(build(), dataset, tmp_path, SILENT)
    assert again.fingerprint == found.fingerprint
    with pytest.raises(pytest.fail.Exception, match="found again"):
        find_proposals(build(input_size=80), dataset, tmp_path, SILENT)


def test_other_processes_give_the_same(dataset, tmp_path, monkeypatch):
    here = find_proposals(build(), dataset, tmp_path / "here", SILENT)
    monkeypatch.setattr(proposing, "MIN_SECONDS", 0)
    there = find_proposals(build(), dataset, tmp_path / "there", SILENT)
    assert there.fingerprint == here.fingerprint


def test_those_of_a_file_are_taken(dataset, tmp_path):
    boxes = {name: np.array([[0, 0, 9, 9], [1, 1, 5, 5]], np.float32) for name in dataset.image_ids}
    write_proposals(tmp_path / "mine.npz", Proposals.of_images(boxes, {"method": "mine"}))
    file = {"proposals": str(tmp_path / "mine.npz"), "proposal_options": {}}
    found = find_proposals(build(**file), dataset, tmp_path / "cache", SILENT)
    assert found.counts.tolist() == [2] * 8
    few = find_proposals(build(**file, max_proposals=1), dataset, tmp_path / "cache", SILENT)
    assert few.counts.tolist() == [1] * 8
    assert not (tmp_path / "cache").exists()
    del boxes[dataset.image_ids[0]]
    write_proposals(tmp_path / "less.npz", Proposals.of_images(boxes, {"method": "mine"}))
    file["proposals"] = str(tmp_path / "less.npz")
    with pytest.raises(DetectError, match="there are no proposals for the image"):
        find_proposals(build(**file), dataset, tmp_path, SILENT)


def test_a_detector_without_use_for_them_gets_none(dataset, tmp_path):
    detector = YOLO(create_backbone("tiny"), 3, input_size=64)
    assert find_proposals(detector, dataset, tmp_path, SILENT) is None


def test_the_regions_are_those_of_the_batches(dataset, tmp_path):
    detector = build()
    found = find_proposals(detector, dataset, tmp_path, SILENT)
    images = ProposedImages(dataset, found, detector.input_spec, 0)
    batches = list(images.batches())
    assert len(batches) == len(images) == 8
    for number, batch in enumerate(batches):
        truth, proposals = images.regions(number)
        assert torch.equal(truth.boxes, batch.truths[0].boxes)
        assert_close(proposals, batch.proposals[0])
    later = list(images.batches(6))
    assert [batch.metas[0].image_id for batch in later] == list(dataset.image_ids[6:])


def test_the_fingerprint_follows_the_content(dataset, tmp_path):
    detector = build()
    found = find_proposals(detector, dataset, tmp_path, SILENT)
    spec = detector.input_spec

    def fingerprint(data=dataset, proposals=found, spec=spec):
        return ProposedImages(data, proposals, spec, 0).fingerprint

    assert fingerprint() == fingerprint()
    others = {
        fingerprint(),
        fingerprint(proposals=found.first(3)),
        fingerprint(spec=build(input_size=80).input_spec),
        fingerprint(data=dataset.subset(range(7))),
    }
    image = dataset.metas[0].path
    content = image.read_bytes()
    try:
        image.write_bytes(content + b"\0")
        others.add(fingerprint())
    finally:
        image.write_bytes(content)
    assert len(others) == 5
