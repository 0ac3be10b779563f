import gc

import pytest


@pytest.fixture(autouse=True)
def _garbage_of_before_stays():
    """Each repeat of a benchmark collects garbage; it need not look through all that tests hold."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
