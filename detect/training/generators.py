"""The random generators of a process as plain data: what a continued run takes up again."""

import random
from typing import Any

import numpy as np
import torch


def generators_state() -> dict[str, Any]:
    """The state of the global generators of Python, numpy and torch, CUDA's devices included."""
    state: Any = np.random.get_state(legacy=True)  # noqa: NPY002
    kind, keys, position, has_gauss, cached = state
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def restore_generators(state: dict[str, Any]) -> None:
    """Set the global generators to what `generators_state` gave."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    keys = keys.numpy().astype(np.uint32)
    np.random.set_state((kind, keys, position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    for device, cuda in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(cuda, device)
