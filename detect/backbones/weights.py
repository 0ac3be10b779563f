"""Loading weights into a backbone: from a file, or the published ones from the network.

Files come in two layouts: that of a published network, as torchvision and timm save theirs, and
our own, `trunk.…` and `head.…`, alone or within a detector or a classifier (`backbone.trunk.…`).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from detect.backbones.base import Backbone, Published
from detect.backbones.download import cache_folder, fetch_file, verify_hash
from detect.backbones.registry import BACKBONES
from detect.errors import DetectError
from detect.wording import counted

# Where files keep their state dict: our checkpoints, then the names common in other training code.
NESTED = ("detector", "classifier", "state_dict", "model")
PARALLEL = "module."  # DataParallel's prefix of every name
ALIKE = 0.8  # least share of equal entries for a network to look like another


def load_weights(backbone: Backbone, name: str, weights: str) -> list[str]:
    """Load `weights` into `backbone`, in place.

    Args:
        backbone: freshly built.
        name: its name in the registry, for messages.
        weights: `none`; `imagenet`, the published weights, which alone may be downloaded; or the
            path of a file: a state dict of the published network of that name (its last layer may
            have any number of classes), of our backbone, or a checkpoint of a detector or
            classifier with this backbone. A hash in the file's name is checked.

    Returns:
        A sentence for the user on each ignored part of the file, and on each part of the backbone
        that the file lacks.

    Raises:
        DetectError: no such file, not a state dict, entries that do not fit, or no network.
    """
    if weights == "none":
        return []
    if weights == "imagenet":
        source = f"the ImageNet weights of {name}"
        state = _published_state(backbone.published, name)
    else:
        source = weights
        if Path(weights).is_file():
            verify_hash(Path(weights))
        state = read_state(Path(weights))
    comparison = _compare(backbone, state)
    if faults := comparison.faults():
        raise DetectError(
            f"{source}: for backbone {name!r} the weights do not fit: {faults}. "
            f"{_likely_network(name, state)}"
        )
    comparison.target.load_state_dict(comparison.entries, strict=False)
    return [f"{source}: {remark}" for remark in comparison.remarks]


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict, at the top or under a name of `NESTED`; nothing in the file can run code.

    DataParallel's prefix of every entry is removed.

    Raises:
        DetectError: the file is missing, torn, or holds more than tensors and plain data.
    """
    if not path.is_file():
        raise DetectError(
            f"{path}: no such weights file; give the path of a state dict, "
            "or 'imagenet' or 'none' as backbone.weights"
        )
    state = _read_content(path)
    while not _is_state_dict(state):
        inner = [state[key] for key in NESTED if isinstance(state, Mapping) and key in state]
        if not inner:
            raise DetectError(
                f"{path}: expected a state dict (name → tensor), or one under "
                f"{', '.join(repr(key) for key in NESTED)}, found {_described(state)}"
            )
        state = inner[0]
    if all(key.startswith(PARALLEL) for key in state):
        return {key.removeprefix(PARALLEL): value for key, value in state.items()}
    return dict(state)


def _read_content(path: Path) -> Any:
    is_safe = path.suffix == ".safetensors"
    try:
        return load_file(path) if is_safe else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # a file of another kind makes both fail in any way
        raise DetectError(
            f"{path}: expected a safetensors file, found one that cannot be read or is torn "
            f"({error})"
            if is_safe
            else f"{path}: expected a state dict saved by torch.save, found a file that cannot be "
            "read, is torn or holds something other than tensors and plain data; nothing in it "
            "was run"
        ) from error


def _is_state_dict(content: Any) -> TypeGuard[Mapping[str, Tensor]]:
    return isinstance(content, Mapping) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    )


def _described(content: Any) -> str:
    kind = type(content).__name__
    if not isinstance(content, Mapping):
        return kind
    keys = [repr(key) for key in content]
    return f"{kind} with {', '.join(keys[:5])}{', …' if len(keys) > 5 else ''}"


def _published_state(published: Published | None, name: str) -> Mapping[str, Tensor]:
    if published is not None and published.weights is not None:
        return read_state(fetch_file(published.weights.url, cache_folder()))
    if published is None or published.fetch is None:
        raise DetectError(
            f"there are no ImageNet weights of backbone {name!r}; set backbone.weights to 'none' "
            "or to a file"
        )
    try:
        return published.fetch()
    except DetectError:
        raise
    except Exception as error:  # each library has its own for a missing network
        raise DetectError(
            f"the ImageNet weights of {name} could not be downloaded ({error}). Bring a file with "
            "its state dict from a machine with a network and give its path as backbone.weights"
        ) from error


@dataclass(frozen=True)
class Comparison:
    """The entries of a file beside those of a backbone.

    Attributes:
        target: the backbone, or the published network it was cut from.
        entries: of the file, without the ignored ones.
        expected: what the file must have.
        remarks: what is ignored of the file, and what it lacks of what it may lack.
    """

    target: nn.Module
    entries: dict[str, Tensor]
    expected: dict[str, Tensor]
    remarks: list[str]

    def faults(self) -> str:
        """What does not fit, or nothing."""
        necessary = _without_counters(self.expected)
        missing = [key for key in necessary if key not in self.entries]
        unexpected = [key for key in self.entries if key not in self.expected]
        differing = [
            f"{key} {_form(self.entries[key])} instead of {_form(self.expected[key])}"
            for key in self.entries
            if key in self.expected and not self._is_alike(key)
        ]
        more = f", and {len(differing) - 3} more" if len(differing) > 3 else ""
        found = {
            "missing": _grouped(missing, necessary),
            "unexpected": _grouped(unexpected, self.entries),
            "of another shape or type": ", ".join(differing[:3]) + more,
        }
        return "; ".join(f"{kind}: {text}" for kind, text in found.items() if text)

    def share(self) -> float:
        """The part of all entries that both have, alike, in 0…1."""
        keys = _without_counters({**self.entries, **self.expected}).keys()
        shared = keys & self.entries.keys() & self.expected.keys()
        return sum(self._is_alike(key) for key in shared) / max(1, len(keys))

    def _is_alike(self, key: str) -> bool:
        return _form(self.entries[key]) == _form(self.expected[key])


def _form(tensor: Tensor) -> str:
    # any precision will do, but integers are of a quantized network and need its scales
    kind = "" if tensor.is_floating_point() else f"{tensor.dtype} "
    return f"{kind.removeprefix('torch.')}{list(tensor.shape)}"


def _compare(backbone: Backbone, state: Mapping[str, Tensor]) -> Comparison:
    if any(key.startswith("backbone.trunk.") for key in state):
        rest = {key: value for key, value in state.items() if not key.startswith("backbone.")}
        own = {key.removeprefix("backbone."): state[key] for key in state if key not in rest}
        return _compare_own(backbone, own, rest)
    if any(key.startswith("trunk.") for key in state):
        beside = ("classifier.", "auxiliaries.")
        own = {key: value for key, value in state.items() if not key.startswith(beside)}
        rest = {key: value for key, value in state.items() if key not in own}
        return _compare_own(backbone, own, rest)
    if backbone.published is None:
        return _compare_own(backbone, dict(state), {})
    return _compare_published(backbone.published, state)


def _compare_own(backbone: Backbone, own: dict[str, Tensor], rest: dict[str, Tensor]) -> Comparison:
    """Compare with our layout; `rest` is of the detector or classifier around the backbone."""
    whole = backbone.state_dict()
    absent = tuple(
        part for part in ("head.", "mean", "std") if not any(key.startswith(part) for key in own)
    )
    expected = {key: value for key, value in whole.items() if not key.startswith(absent)}
    remarks = _remarks_on(rest, "classifier.", ("auxiliaries.",))
    others = [key for key in rest if not key.startswith(("classifier.", "auxiliaries."))]
    if others:
        remarks.append(f"what the backbone was part of is left out: {_grouped(others, rest)}")
    num_drawn = sum(key.startswith("head.") for key in whole.keys() - expected.keys())
    if num_drawn:
        remarks.append(
            f"it has no head: that of the backbone ({counted(num_drawn, 'tensor')}) keeps its "
            "random weights, which matters to a detector that uses it"
        )
    statistics = [key for key in ("mean", "std") if key in absent]
    if statistics:
        remarks.append(f"it has no {' and '.join(statistics)}: the backbone keeps its own")
    return Comparison(backbone, own, expected, remarks)


def _compare_published(published: Published, state: Mapping[str, Tensor]) -> Comparison:
    """Compare with the layout of the network that the backbone was cut from."""
    # an empty prefix, of a network without a last layer, would match every entry
    left_out = tuple(prefix for prefix in (published.classifier, *published.ignored) if prefix)
    entries, expected = (
        {key: value for key, value in entries.items() if not key.startswith(left_out)}
        for entries in (state, published.network.state_dict())
    )
    remarks = _remarks_on(state, published.classifier, published.ignored)
    return Comparison(published.network, entries, expected, remarks)


def _remarks_on(
    state: Mapping[str, Tensor], classifier: str, auxiliaries: tuple[str, ...]
) -> list[str]:
    remarks = []
    layer = [key for key in state if classifier and key.startswith(classifier)]
    weight = state.get(f"{classifier}weight")
    if layer and weight is not None and weight.ndim > 0:
        remarks.append(f"its last layer, for {counted(len(weight), 'class')}, is left out")
    elif layer:
        remarks.append(f"its last layer ({_grouped(layer, layer)}) is left out")
    keys = [key for key in state if key.startswith(auxiliaries)]
    if keys:
        remarks.append(f"its auxiliary classifiers ({_grouped(keys, keys)}) are left out")
    return remarks


def _without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # old files have no counters of BatchNorm's batches, which inference does not use
    return {k: value for k, value in state.items() if not k.endswith("num_batches_tracked")}


def _grouped(keys: Collection[str], all_keys: Collection[str], limit: int = 6) -> str:
    """`layer3.* (24), layer4.* (6 of 30), fc.bias`: how many of `all_keys` that begin so."""
    groups = _groups(list(keys), list(all_keys), "")
    more = f", and {len(groups) - limit} more such" if len(groups) > limit else ""
    return ", ".join(groups[:limit]) + more


def _groups(keys: list[str], all_keys: list[str], prefix: str) -> list[str]:
    members: dict[str, list[str]] = {}
    for key in keys:
        part, dot, _ = key.removeprefix(prefix).partition(".")
        members.setdefault(f"{prefix}{part}{dot}", []).append(key)
    groups = []
    for start, group in members.items():
        family = [key for key in all_keys if key.startswith(start)]
        if len(members) == 1 and 1 < len(group) < len(family):
            return _groups(group, family, start)  # where in it, since it says nothing by itself
        of_family = "" if len(group) == len(family) else f" of {len(family)}"
        groups.append(group[0] if len(group) == 1 else f"{start}* ({len(group)}{of_family})")
    return groups


def _likely_network(name: str, state: Mapping[str, Tensor]) -> str:
    """A sentence on the backbone that the weights are of, found by their names and shapes."""
    fitting, shares = [], {}
    for candidate in BACKBONES:
        backbone = _without_numbers(BACKBONES[candidate])
        if backbone is None:
            continue
        comparison = _compare(backbone, state)
        shares[candidate] = comparison.share()
        if not comparison.faults():
            fitting.append(repr(candidate))
    if fitting:
        return f"These are weights of {' or '.join(fitting)}: set backbone.name to that"
    best = max(shares, key=lambda candidate: shares[candidate], default=name)
    if shares.get(best, 0.0) < ALIKE:
        return "Choose the backbone that the file was made for"
    # rounded down: not all of them agree
    percent = f"{int(100 * shares[best])} % of the entries agree"
    if best == name:
        return f"They are of a changed {name!r}, or damaged: {percent}"
    return f"They look most like {best!r}, but are of a changed one: {percent}"


@cache
def _without_numbers(build: Callable[[], Backbone]) -> Backbone | None:
    """A backbone of shapes alone, or None if it cannot be built so."""
    try:
        with torch.device("meta"):
            return build()
    except Exception:  # whatever a network does with its numbers when it is built
        return None
