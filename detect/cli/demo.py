"""`detect demo`: the whole way from nothing to an image with boxes."""

import time
from pathlib import Path

from rich.console import Console

from detect.cli.train import RUNS
from detect.config import load_config
from detect.data import read_dataset, read_image
from detect.experiment.model import SCORE_THRESHOLD, load
from detect.experiment.training import train
from detect.visualization import contact_sheet, draw_curves, draw_detections, save_image

CONFIG = "yolo_tiny_shapes"
NUM_IMAGES = 24


def run_demo(out: Path | None, device: str, console: Console) -> None:
    """Draw the shapes set, train a small YOLO, judge it, draw what it finds."""
    folder = out or RUNS / f"demo-{time.strftime('%Y%m%d-%H%M%S')}"
    begin = time.monotonic()
    console.rule("detect demo")
    console.print(
        f"Drawing images of shapes, training a small YOLO on them, and judging it on images "
        f"that it has not seen. Everything goes into {folder}.\n",
        highlight=False,
    )
    config, _ = load_config(CONFIG, [f"data.root={folder / 'shapes'}"])
    evaluation = train(config, folder, device=device, console=console)
    assert evaluation is not None  # the demo's config has a test split
    report = evaluation.report
    draw_curves(folder / "metrics.jsonl", folder / "curves.png")
    console.print(report.table())
    sheet = _draw_images(folder, device)
    console.print(
        f"\nmAP (area, IoU 0.5) {report.map_area:.3f} on {report.protocol.num_images} held-out "
        f"images, {time.monotonic() - begin:.0f} s in all.\n"
        f"  {sheet}  what it finds\n"
        f"  {folder / 'curves.png'}  how it learned\n"
        f"  {folder / 'evaluation.json'}  the numbers\n\n"
        "Next:\n"
        f"  detect infer {folder} {folder / 'shapes' / 'JPEGImages'} --out found\n"
        f"  detect evaluate {folder} --iou 0.75\n"
        "  detect data check YOUR_VOC_FOLDER\n"
        "  detect train --help",
        highlight=False,
        soft_wrap=True,
    )


def _draw_images(folder: Path, device: str) -> Path:
    model = load(folder, device)
    dataset = read_dataset(
        folder / "shapes", "test", classes=model.class_names, verify_images=False
    )
    paths = [meta.path for meta in dataset.metas[:NUM_IMAGES] if meta.path is not None]
    images = []
    for path, found in zip(paths, model.predict(paths), strict=True):
        image = draw_detections(read_image(path), found, model.class_names, upscale_to=384)
        save_image(folder / "pictures" / path.name, image)
        images.append(image)
    sheet = folder / "contact_sheet.png"
    title = f"YOLO on held-out images, scores of {SCORE_THRESHOLD} and more"
    save_image(sheet, contact_sheet(images, [path.stem for path in paths], title=title))
    return sheet
