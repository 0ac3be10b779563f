import numpy as np
import pytest

from detect.proposals import grouping, regions
from detect.proposals.compiled import compiled_kernels
from detect.proposals.grouping import Similarity, group_regions
from detect.proposals.regions import (
    NUM_COLOR_BINS,
    NUM_TEXTURE_BINS,
    color_bins,
    measure_regions,
    segment,
    texture_bins,
    to_color_space,
)
from tests.proposals.image_sources import blobs
from tests.reference.proposals import (
    box_around,
    fill_similarity,
    histogram,
    intersection,
    size_similarity,
    touch,
)

KINDS = [
    Similarity(color=True, texture=True, size=True, fill=True),
    Similarity(texture=True, size=True, fill=True),
    Similarity(color=True),
    Similarity(size=True),
    Similarity(fill=True),
]


def measured(image, space="hsv", scale=8):
    channels = to_color_space(image, space)
    colors, textures = color_bins(channels), texture_bins(channels)
    ((labels, num_regions),) = segment(channels, [scale])
    return measure_regions(labels, num_regions, colors, textures), labels, colors, textures


@pytest.fixture(params=["numba", "numpy"])
def kernels(request, monkeypatch):
    """Each test once with the compiled loops and once with numpy alone."""
    if request.param == "numba":
        pytest.importorskip("numba")
        assert compiled_kernels() is not None
    else:
        monkeypatch.setattr(grouping, "compiled_kernels", lambda: None)
        monkeypatch.setattr(regions, "compiled_kernels", lambda: None)


def pixels_of(labels, hierarchy):
    """The pixels of every region, the merged ones included."""
    num_regions = int(labels.max()) + 1
    masks = [list(zip(*np.nonzero(labels == n), strict=True)) for n in range(num_regions)]
    for one, other in hierarchy.merges:
        masks.append(masks[one] + masks[other])
    return masks


@pytest.mark.parametrize("similarity", KINDS)
def test_each_merge_is_of_the_most_similar_neighbors(kernels, similarity):
    del kernels
    image = blobs((18, 26), seed=3)
    found, labels, colors, textures = measured(image)
    num_regions, area = len(found), labels.size
    assert num_regions > 6
    hierarchy = group_regions(found, similarity)
    masks = pixels_of(labels, hierarchy)
    color_maps = np.moveaxis(colors, 2, 0)
    signed = np.moveaxis(textures.astype(int), 2, 0)
    texture_maps = [part for each in signed for part in (each.clip(0), (-each).clip(0))]
    color_shares = [histogram(mask, color_maps, NUM_COLOR_BINS) for mask in masks]
    texture_shares = [histogram(mask, texture_maps, NUM_TEXTURE_BINS) for mask in masks]

    def similar(a, b):
        total = 0
        total += intersection(color_shares[a], color_shares[b]) if similarity.color else 0
        total += intersection(texture_shares[a], texture_shares[b]) if similarity.texture else 0
        total += size_similarity(masks[a], masks[b], area) if similarity.size else 0
        total += fill_similarity(masks[a], masks[b], area) if similarity.fill else 0
        return float(total)

    alive = set(range(num_regions))
    for step, (one, other) in enumerate(hierarchy.merges.tolist()):
        assert {one, other} <= alive
        pairs = [(a, b) for a in alive for b in alive if a < b and touch(masks[a], masks[b])]
        assert (min(one, other), max(one, other)) in pairs
        assert similar(one, other) == pytest.approx(max(similar(a, b) for a, b in pairs), abs=1e-12)
        alive = alive - {one, other} | {num_regions + step}
    assert alive == {2 * num_regions - 2}


def test_merged_histograms_are_those_of_the_merged_pixels(kernels):
    del kernels
    found, labels, colors, textures = measured(blobs((30, 44), seed=1), "lab")
    hierarchy = group_regions(found, KINDS[0])
    for region, pixels in enumerate(pixels_of(labels, hierarchy)):
        mask = np.zeros_like(labels)
        mask[tuple(np.transpose(pixels))] = 1
        if mask.all():
            again = measure_regions(np.zeros_like(labels), 1, colors, textures)
            row = 0
        else:
            again = measure_regions(mask, 2, colors, textures)
            row = 1
        assert np.array_equal(hierarchy.colors[region], again.colors[row])
        assert np.array_equal(hierarchy.textures[region], again.textures[row])
        assert hierarchy.sizes[region] == len(pixels)
        assert tuple(hierarchy.boxes[region]) == box_around(pixels)


@pytest.mark.parametrize("similarity", KINDS)
@pytest.mark.parametrize("space", ["hsv", "intensity"])
def test_numpy_alone_gives_the_same_hierarchy(monkeypatch, similarity, space):
    pytest.importorskip("numba")
    found, *_ = measured(blobs((64, 90), seed=2), space, scale=5)
    assert len(found) > 40
    compiled = group_regions(found, similarity)
    monkeypatch.setattr(grouping, "compiled_kernels", lambda: None)
    plain = group_regions(found, similarity)
    for field in ("merges", "boxes", "sizes", "colors", "textures"):
        assert np.array_equal(getattr(plain, field), getattr(compiled, field)), field


def test_equally_similar_pairs_are_merged_in_their_order(kernels):
    del kernels
    # four equal squares in a row: by size alone all three pairs are alike
    labels = np.repeat(np.arange(4), 3)[None].repeat(3, axis=0)
    channels = np.zeros((*labels.shape, 1), np.float32)
    found = measure_regions(labels, 4, color_bins(channels), texture_bins(channels))
    hierarchy = group_regions(found, Similarity(size=True))
    assert hierarchy.merges.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_regions_of_one_color_are_merged_first(kernels):
    del kernels
    # red, blue, red, blue clockwise: 0 and 3 touch at a corner alone
    labels = np.repeat(np.repeat([[0, 1], [2, 3]], 6, axis=0), 6, axis=1)
    image = np.array([[200, 0, 0], [0, 0, 200], [0, 0, 200], [200, 0, 0]], np.uint8)[labels]
    channels = to_color_space(image, "rgb")
    found = measure_regions(labels, 4, color_bins(channels), texture_bins(channels))
    assert len(found.neighbors) == 6
    merges = group_regions(found, Similarity(color=True)).merges
    assert [sorted(pair) for pair in merges.tolist()] == [[0, 3], [1, 2], [4, 5]]


def test_a_single_region_has_nothing_to_merge(kernels):
    del kernels
    found, *_ = measured(np.full((9, 7, 3), 80, np.uint8))
    hierarchy = group_regions(found, KINDS[0])
    assert hierarchy.merges.shape == (0, 2)
    assert hierarchy.boxes.tolist() == [[0, 0, 7, 9]]


def test_counts_of_a_huge_image_do_not_overflow(kernels):
    del kernels
    # two halves of 2**28 pixels, the largest image that is read; nothing is allocated for them
    half = 2**27
    colors = np.zeros((2, 3 * NUM_COLOR_BINS), np.int32)
    colors[:, ::NUM_COLOR_BINS] = half
    textures = np.zeros((2, 24 * NUM_TEXTURE_BINS), np.int32)
    textures[:, ::NUM_TEXTURE_BINS] = half
    found = regions.Regions(
        sizes=np.array([half, half]),
        boxes=np.array([[0, 0, 2**14, 2**13], [0, 2**13, 2**14, 2**14]]),
        colors=colors,
        textures=textures,
        neighbors=np.array([[0, 1]]),
        num_channels=3,
    )
    hierarchy = group_regions(found, KINDS[0])
    assert hierarchy.sizes[2] == 2**28
    assert (hierarchy.textures[2, ::NUM_TEXTURE_BINS] == 2**28).all()
    similarity = grouping._similarities(
        found, np.array([0]), np.array([1]), 2**28, 3, Similarity(color=True, texture=True)
    )
    assert similarity.tolist() == [2.0]
