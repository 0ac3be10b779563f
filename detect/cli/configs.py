"""`detect configs`: those that come with the toolkit."""

import shutil
from pathlib import Path

from rich.console import Console

from detect.cli.screen import say
from detect.configs import SUFFIXES, is_pretraining, shipped_configs, shipped_folders, title_of
from detect.errors import DetectError
from detect.registry import hint


def list_configs(console: Console) -> None:
    """Print a line for each config, under the command that takes it."""
    shipped = shipped_configs()
    width = max(map(len, shipped))
    heading = ""
    for name, file in shipped.items():
        folder = name.rpartition("/")[0]
        also = f"detect compare {folder}, or " if folder else ""
        if heading != (heading := also + _command(name).format("NAME")):
            say(console, f"{heading}:")
        say(console, f"  {name:<{width}}  {title_of(file)}")
    say(console, "\n'detect configs NAME' prints one; with --copy it writes one to edit")


def print_config(name: str, console: Console) -> None:
    """Print a config as it is.

    Raises:
        DetectError: there is none of that name.
    """
    shipped = shipped_configs()
    if name in shipped_folders():
        inside = ", ".join(one for one in shipped if one.startswith(f"{name}/"))
        raise DetectError(f"{name} is a folder of configs; print one of them: {inside}")
    if name not in shipped:
        raise _unknown(name)
    say(console, shipped[name].read_text(encoding="utf-8").rstrip("\n"))


def copy_configs(name: str, target: str, force: bool, console: Console) -> None:
    """Write a config, or those of a folder, to be edited.

    Args:
        name: of a config or of a folder of them.
        target: a folder, or a file that ends with .yaml.
        force: replace files that are there.
        console: where the next step is printed.

    Raises:
        DetectError: there is none of that name, or a file is there already.
    """
    folders = shipped_folders()
    into = Path(target)
    if name in folders:
        into = into / name if target == "." else into
        copies = {file: into / file.name for file in sorted(folders[name].glob("*.yaml"))}
    elif name in shipped_configs():
        file = shipped_configs()[name]
        copies = {file: into if into.suffix in SUFFIXES else into / file.name}
    else:
        raise _unknown(name)
    for copy in copies.values():
        if copy.exists() and not force:
            raise DetectError(f"{copy} is there already; --force replaces it")
    for file, copy in copies.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    written = into if name in folders else copy
    say(console, f"Written: {written}\nEdit it, then: {_command(name).format(written)}")


def _command(name: str) -> str:
    if name in shipped_folders():
        return "detect compare {}"
    return "detect pretrain {}" if is_pretraining(name) else "detect train {}"


def _unknown(name: str) -> DetectError:
    remedy = hint(name, [*shipped_configs(), *shipped_folders()])
    return DetectError(f"no config of the name {name} comes with the toolkit; {remedy}")
