import io

import pytest
from rich.console import Console

from detect.training import FitPhase
from detect.training.progress import ProgressDisplay, describe_losses
from tests.training.tiny_training import Brightness, make_phase, make_run, make_settings

TWO = {"coordinates": 0.51234, "object": 0.73456}
EIGHT = {f"some_long_term_{number}": number + 0.123456 for number in range(8)}
FASTER = {"rpn_objectness": 0.61, "rpn_boxes": 0.12, "classes": 1.5, "boxes": 0.3}
LONG_NAME = "rpn_on_shared_features_of_the_second_step"


def line(width, terms, name="train", steps=1800, done=120, terminal=True):
    """What a terminal shows of a phase of 12 epochs, 120 steps and 24 s after its beginning."""
    now = [0.0]
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    display = ProgressDisplay(console, clock=lambda: now[0])
    display.start_phase(name, steps, 0, epochs=12)
    now[0] = 24.0
    display.step(done)
    display.show_losses(terms, 152.3, 0.031)
    console.print(display)
    (shown,) = console.file.getvalue().splitlines()
    return shown


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("terms", [TWO, EIGHT, FASTER])
@pytest.mark.parametrize("name", ["train", LONG_NAME])
def test_bar_count_rate_and_time_left_are_always_there(width, terms, name):
    shown = line(width, terms, name)
    assert len(shown) < width
    assert "━─────" in shown
    assert " 120/1800 " in shown
    assert " 152 images/s " in shown
    assert "0:05:36" in shown  # 1,680 steps at 5 a second
    assert shown.startswith(name[:4])


def test_losses_give_way_before_the_name_the_last_term_first():
    name = "train 1/12"
    assert line(200, FASTER).startswith(name)
    assert (
        line(200, FASTER)
        .rstrip()
        .endswith(
            "loss 2.530 (rpn_objectness 0.61, rpn_boxes 0.12, classes 1.5, boxes 0.3)  "
            "waiting for data 3%"
        )
    )
    seen = [line(width, FASTER).rstrip().partition("loss")[2] for width in range(60, 201)]
    assert list(dict.fromkeys(seen)) == [
        "",
        " 2.530",
        " 2.530 (rpn_objectness 0.61, …)",
        " 2.530 (rpn_objectness 0.61, rpn_boxes 0.12, …)",
        " 2.530 (rpn_objectness 0.61, rpn_boxes 0.12, classes 1.5, …)",
        " 2.530 (rpn_objectness 0.61, rpn_boxes 0.12, classes 1.5, boxes 0.3)",
        " 2.530 (rpn_objectness 0.61, rpn_boxes 0.12, classes 1.5, boxes 0.3)  waiting for data 3%",
    ]
    assert line(80, FASTER).startswith(name)
    assert "loss 2.530" in line(80, FASTER)
    assert "rpn_on" in line(80, TWO, LONG_NAME)
    assert "1/12" in line(80, TWO, LONG_NAME)  # a long name is cut in its middle


def test_the_epoch_is_that_of_the_last_step():
    assert line(80, TWO, done=150).startswith("train 1/12")
    assert line(80, TWO, done=151).startswith("train 2/12")
    assert line(80, TWO, done=1800).startswith("train 12/12")


def test_a_log_file_gets_a_plain_line_a_minute_and_what_is_said():
    now = [0.0]
    console = Console(file=io.StringIO(), width=80)
    with ProgressDisplay(console, clock=lambda: now[0]) as display:
        display.start_phase("train", total=600, done=0, epochs=2)
        for step in range(130):
            now[0] = float(step + 1)
            display.step()
            display.show_losses(EIGHT, 8.0, 0.5)
        display.say("train epoch 1/1: loss 0.750")
    first, second, last = console.file.getvalue().splitlines()
    losses = describe_losses(EIGHT)
    assert (
        first == f"train 1/2: 60/600 | 8.0 images/s | 0:09:00 left | {losses}  waiting for data 50%"
    )
    assert second.startswith("train 1/2: 120/600 | ")
    assert last == "train epoch 1/1: loss 0.750"


def test_a_message_is_one_line_as_it_is():
    # piped into a file, rich takes the width for 80 and brackets for its markup
    output = io.StringIO()
    display = ProgressDisplay(Console(file=output, width=80))
    message = "train epoch 1/3: loss 1.000 ([bold] 1) | " + "images/s " * 20 + "| mAP 0.5 (best)"
    display.say(message)
    assert output.getvalue() == message + "\n"


def test_a_step_that_solves_shows_its_own_rate():
    now = [0.0]
    console = Console(file=io.StringIO(), width=60, force_terminal=True, color_system=None)
    display = ProgressDisplay(console, clock=lambda: now[0])
    display.start_phase("svms", 20, 0)
    now[0] = 30.0
    display.step(5)
    console.print(display)
    assert console.file.getvalue().split() == [
        "svms",
        "━━━━━───────────────",
        *["5/20", "0.17/s", "0:01:30"],
    ]


def test_losses_are_summed_and_listed():
    terms = {"coordinates": 0.5, "object": 0.73456}
    assert describe_losses(terms) == "loss 1.235 (coordinates 0.5, object 0.735)"
    assert describe_losses({}) == "loss 0.000 ()"


def said_by_a_run(folder, make_phases, resume=False):
    """The lines that a run leaves in a log file."""
    console = Console(file=io.StringIO(), width=80)
    module = Brightness()
    run = make_run(module, folder, display=ProgressDisplay(console))
    if resume:
        run.resume()
    run.run(make_phases(module))
    return console.file.getvalue().splitlines()


def two_descents(module):
    two, one = make_settings(epochs=2), make_settings(epochs=1)
    return [make_phase(module, two, name="first"), make_phase(module, one, name="second")]


def test_a_run_says_what_it_is_about_to_do_and_when_it_will_be_done(tmp_path):
    lines = said_by_a_run(tmp_path, two_descents)
    assert lines[:3] == [
        "Training, 2 phases:",
        "  1. first, 2 epochs of 5 steps",
        "  2. second, 1 epoch of 5 steps",
    ]
    first, second, last = lines[3:]
    assert " | a few seconds in all, done at " in first
    # of the whole run: the second phase is still to come
    assert " | a few seconds left, done at " in second
    assert "done at" not in last
    again = said_by_a_run(tmp_path, two_descents, resume=True)
    assert again[1] == "  1. first, 2 epochs of 5 steps (done before)"


def test_what_nobody_can_foretell_is_not_foretold(tmp_path):
    def phases(module):
        return [*two_descents(module)[:1], FitPhase("svms", lambda _: None)]

    lines = said_by_a_run(tmp_path, phases)
    assert lines[2] == "  2. svms"
    assert lines[3].endswith(" for first")
    assert "done at" not in lines[4]


def test_a_run_of_one_phase_announces_itself_in_a_line(tmp_path):
    lines = said_by_a_run(tmp_path, lambda module: [make_phase(module)])
    assert lines[0] == "Training: train, 3 epochs of 5 steps"
    assert lines[1].startswith("train epoch 1/3: loss ")
