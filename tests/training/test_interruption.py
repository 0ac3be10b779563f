import signal
import threading
from pathlib import Path

import pytest

from detect.training.interruption import Interruption

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def caught():
    """Handlers that note which signals reach them, in place of those that end the process."""
    received = []
    before = {
        number: signal.signal(number, lambda found, _: received.append(found)) for number in SIGNALS
    }
    yield received
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_the_second_acts(caught, number):
    with Interruption() as interruption:
        assert interruption.requested is None
        signal.raise_signal(number)
        assert interruption.requested is number
        assert caught == []
        signal.raise_signal(number)
        assert caught == [number]
    assert interruption.requested is number


def test_the_second_signal_may_be_another(caught):
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert interruption.requested is signal.SIGINT
    assert caught == [signal.SIGTERM]


def test_the_second_interrupt_is_the_usual_one(caught):  # noqa: ARG001
    # Python's own handler, which a process in the background begins without
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt), Interruption():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("fault", [None, RuntimeError])
@pytest.mark.parametrize("raised", [True, False])
def test_the_handlers_are_restored(caught, fault, raised):  # noqa: ARG001
    before = [signal.getsignal(number) for number in SIGNALS]
    try:
        with Interruption():
            assert [signal.getsignal(number) for number in SIGNALS] != before
            if raised:
                signal.raise_signal(signal.SIGTERM)
            if fault:
                raise fault
    except RuntimeError:
        pass
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_outside_the_main_thread_signals_act_as_ever():
    before = [signal.getsignal(number) for number in SIGNALS]
    seen = []

    def enter():
        with Interruption() as interruption:
            seen.append([signal.getsignal(number) for number in SIGNALS])
            seen.append(interruption.requested)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before, None]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_error_names_signal_and_checkpoint(caught, number, status):  # noqa: ARG001
    with Interruption() as interruption:
        signal.raise_signal(number)
    error = interruption.error(Path("run") / "last.pt", interruption.requested)
    assert error.status == status
    assert str(error) == (
        f"stopped by {number.name}; everything so far is in {Path('run') / 'last.pt'}. "
        "The same command with --resume continues"
    )
