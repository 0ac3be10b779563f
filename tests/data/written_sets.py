"""Small sound data sets in the formats of YOLO and COCO, for tests."""

import json

from tests.data.checked_folder import SIZE, encoded, scene


def write_yolo(root, rows=(), numbers=range(12)):
    """Sound images in YOLO's format, half of them for training; `rows` are of the first."""
    for number in numbers:
        split = "train" if number % 2 == 0 else "val"
        for folder, suffix in (("images", ".jpg"), ("labels", ".txt")):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
            path = root / folder / split / f"{number:06}{suffix}"
            if suffix == ".jpg":
                path.write_bytes(encoded(scene(number)))
            else:
                sound = ["0 0.25 0.5 0.3 0.4", "1 0.75 0.5 0.3 0.4"]
                path.write_text("\n".join([*sound, *(rows if number == 0 else [])]))
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog]\n")


def write_coco(root, numbers=range(12)):
    """Sound images in COCO's format, all in one folder."""
    (root / "annotations").mkdir()
    (root / "images").mkdir()
    contents = {}
    for number in numbers:
        name = f"{number:06}.jpg"
        (root / "images" / name).write_bytes(encoded(scene(number)))
        split = "train" if number % 2 == 0 else "val"
        content = contents.setdefault(split, {"images": [], "annotations": []})
        height, width = SIZE
        content["images"].append(
            {"id": number, "file_name": name, "height": height, "width": width}
        )
        for category_id, x in ((1, 10), (2, 90)):
            own_id = 2 * number + category_id
            entry = {"id": own_id, "image_id": number, "category_id": category_id}
            content["annotations"].append({**entry, "bbox": [x, 20, 60, 50], "iscrowd": 0})
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    for split, content in contents.items():
        file = root / "annotations" / f"instances_{split}.json"
        file.write_text(json.dumps({**content, "categories": categories}))
    return contents, categories
