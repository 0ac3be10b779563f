"""`detect data show` shows what is trained on."""

from pathlib import Path

import pytest
from rich.console import Console

from detect.cli import data
from detect.data import EpochOrder, draw_figures, read_dataset


@pytest.mark.parametrize("flip", [0, 1])
def test_mirrored_joints_change_sides(tmp_path, monkeypatch, flip):
    root = tmp_path / "figures"
    draw_figures(root, 10, image_size=(96, 96))
    overrides = [
        f"data.root={root}",
        "data.num_images=10",
        f"data.augmentation={{horizontal_flip: {flip}, scale: 0, shift: 0}}",
    ]
    shown = []

    def keep(image, truth, class_names):  # noqa: ARG001
        shown.append(truth.joints)
        return image

    monkeypatch.setattr(data, "draw_truth", keep)
    sheet = tmp_path / "sheet.png"
    data.show_training_images(
        Path("localizer_tiny_figures"), overrides, sheet, 3, Console(quiet=True)
    )
    dataset = read_dataset(root, "train", "coco_keypoints")
    names = list(dataset.joint_names)
    (order, *_) = EpochOrder(len(dataset), batch_size=3, seed=0)
    assert len(shown) == 3
    for joints, (index, _) in zip(shown, order, strict=True):
        own = dataset.truths[index].joints[0]
        for number, name in enumerate(names):
            swapped = {"left": "right", "right": "left"}.get(name.split("_")[0], "")
            other = names.index(f"{swapped}_{name.split('_')[1]}") if swapped and flip else number
            x, y, visibility = own[other].tolist()
            if visibility:
                expected = [96 - x if flip else x, y, visibility]
                assert joints[0, number].tolist() == pytest.approx(expected, abs=1e-3)
