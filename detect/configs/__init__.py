"""The configs that come with the toolkit, by name: `yolo_tiny_shapes`, `compare/yolo`. Floor 0.

A name stands for the same config everywhere; a file of one's own is given by its path, suffix and
all. `compare` is the name of a folder of them.
"""

from pathlib import Path

from detect.errors import DetectError
from detect.registry import hint, nearest

FOLDER = Path(__file__).parent
SUFFIXES = (".yaml", ".yml")


def shipped_configs() -> dict[str, Path]:
    """The files by name: detectors, classifiers, then those in folders."""
    files = {name_of(file): file for file in FOLDER.rglob("*.yaml")}
    order = sorted(files, key=lambda name: ("/" in name, is_pretraining(name), name))
    return {name: files[name] for name in order}


def is_pretraining(name: str) -> bool:
    """Whether `detect pretrain` takes the config of that name, not `detect train`."""
    return name.startswith("pretrain_")


def shipped_folders() -> dict[str, Path]:
    """The folders by name."""
    return {folder.name: folder for folder in FOLDER.iterdir() if any(folder.glob("*.yaml"))}


def find_config(given: str | Path) -> Path:
    """The file of a config that is given by path, or by its name if it comes with the toolkit.

    Raises:
        DetectError: it is the name of one, and of a file here, with the suffix.
    """
    shipped = shipped_configs().get(str(given))
    if shipped is None:
        return Path(given)
    own = Path(f"{given}{SUFFIXES[0]}")
    if own.exists():
        raise DetectError(
            f"{given}: a config of this name comes with the toolkit, and {own} is here as well; "
            f"write {own} to take the file, or rename it to take the other"
        )
    return shipped


def name_of(file: Path) -> str:
    """How messages call a config: by the name of those that come with the toolkit, else by path."""
    if not file.is_relative_to(FOLDER):
        return str(file)
    return file.relative_to(FOLDER).with_suffix("").as_posix()


def title_of(file: Path) -> str:
    """What it is a config of: its first line."""
    return file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def missing_config(given: Path) -> DetectError:
    """What to say of a config that is not there, with names alike, here and in the toolkit."""
    shipped = shipped_configs()
    name = (given.parent / given.stem).as_posix().removeprefix("configs/")
    if name in shipped:
        return DetectError(
            f"{given}: no such config file; did you mean {name}, which comes with the toolkit?"
        )
    here = {file.name: str(file) for file in given.parent.glob("*") if file.suffix in SUFFIXES}
    remedy = hint(name, shipped)
    for alike in nearest(given.name, here, count=1):
        remedy = f"did you mean {here[alike]}?"
    return DetectError(f"{given}: no such config file; {remedy}")
