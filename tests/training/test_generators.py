import random

import numpy as np
import torch

from detect.training import load_checkpoint, save_checkpoint
from detect.training.generators import generators_state, restore_generators


def draw():
    # the Gaussian numbers come in pairs: the second is part of the state
    numbers = np.random.rand(), np.random.randn()  # noqa: NPY002
    return [random.random(), random.gauss(0, 1), *numbers, torch.rand(3)]


def test_all_generators_go_on_from_where_they_were(tmp_path):
    for _ in range(3):  # odd, so that halves of pairs are left
        random.gauss(0, 1), np.random.randn()  # noqa: NPY002
    save_checkpoint(tmp_path / "state.pt", {"generators": generators_state()})
    expected = draw()
    restore_generators(load_checkpoint(tmp_path / "state.pt")["generators"])
    found = draw()
    assert found[:4] == expected[:4]
    assert torch.equal(found[4], expected[4])
