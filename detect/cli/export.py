"""`detect export-weights`: a model's weights in a file that any program can read."""

import json
from pathlib import Path

from rich.console import Console
from safetensors.torch import save_file

from detect.cli.screen import say
from detect.errors import DetectError
from detect.experiment.model import find_checkpoint
from detect.files import replacing
from detect.training import load_checkpoint

KINDS = ("detector", "classifier")


def export_weights(model: Path, out: Path, backbone_only: bool, console: Console) -> None:
    """Write the weights of a run or checkpoint as safetensors.

    The file holds the tensors by name, and as metadata the class names and the config, as JSON.

    Raises:
        DetectError: no such model, no weights of the part that is asked for, or a suffix that says
            something else.
    """
    if out.suffix != ".safetensors":
        raise DetectError(f"--out: expected a name that ends with .safetensors, found {out}")
    file = find_checkpoint(model)
    content = load_checkpoint(file)
    kind = next((kind for kind in KINDS if kind in content), None)
    if kind is None:
        raise DetectError(f"{file}: expected a model, found a checkpoint without weights")
    tensors = dict(content[kind])
    if backbone_only:
        start = len("backbone.")
        tensors = {n[start:]: one for n, one in tensors.items() if n.startswith("backbone.")}
    if not tensors:
        raise DetectError(f"{file}: expected a backbone in it, found none")
    metadata = {
        "format": "pt",
        "kind": "backbone" if backbone_only else kind,
        "class_names": json.dumps(list(content["class_names"]), ensure_ascii=False),
        "config": json.dumps(content["config"], ensure_ascii=False),
    }
    # safetensors stores memory that two names share once only, and contiguous
    tensors = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    with replacing(out) as temporary:
        save_file(tensors, temporary, metadata)
    count = sum(tensor.numel() for tensor in tensors.values())
    say(console, f"{len(tensors)} tensors, {count:,} numbers, of {file}: {out}")
