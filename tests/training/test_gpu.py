"""What only a GPU can show: steps that do not wait for it, and runs that end in the same bits."""

import pytest
import torch
from torch.testing import assert_close

from detect.training import ALONE, EngineSettings
from detect.training.descent import Descent
from tests.training.tiny_training import Brightness, Images, make_phase, make_settings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def make_descent(**engine):
    device = torch.device("cuda")
    module = Brightness().to(device)
    phase = make_phase(module, make_settings(ema_decay=0.9, gradient_clip=1.0))
    return Descent(phase, module, EngineSettings(**engine), device, ALONE)


@pytest.mark.parametrize("engine", [{}, {"precision": "mixed"}, {"on_nan": "skip"}])
def test_a_step_does_not_wait_for_the_device(engine):
    descent = make_descent(**engine)
    batches = [batch.pin_memory() for batch in Images().epoch(0)]
    descent.step(batches[0], 0.05)  # the first one allocates
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[1:]:
            descent.step(batch, 0.05)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_two_runs_on_a_gpu_end_in_the_same_bits():
    ends = []
    for _ in range(2):
        torch.manual_seed(0)
        torch.cuda.manual_seed(0)
        descent = make_descent()
        for batch in Images().epoch(0):
            descent.step(batch, 0.05)
        ends.append(
            {name: value.cpu() for name, value in descent.phase.module.state_dict().items()}
        )
    assert_close(*ends, rtol=0, atol=0)
