import io

from rich.console import Console

from detect.training.progress import ProgressDisplay, describe_losses


def shown(terminal):
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=100)
    with ProgressDisplay(console) as display:
        display.start_phase("first", total_steps=4, done=2)
        display.step("loss 1.25 (object 1.25)")
        display.start_phase("second", total_steps=3, done=0)
        for _ in range(3):
            display.step("loss 0.75 (object 0.75)")
        display.say("second epoch 1/1: loss 0.750")
    return output.getvalue()


def test_a_terminal_shows_the_bar_of_the_phase():
    output = shown(terminal=True)
    assert "second" in output
    assert "3/3" in output
    assert "loss 0.75 (object 0.75)" in output
    assert "second epoch 1/1: loss 0.750" in output


def test_a_file_gets_whole_epochs_only():
    assert shown(terminal=False) == "second epoch 1/1: loss 0.750\n"


def test_a_message_is_one_line_as_it_is():
    # piped into a file, rich takes the width for 80 and brackets for its markup
    output = io.StringIO()
    display = ProgressDisplay(Console(file=output, width=80))
    message = "train epoch 1/3: loss 1.000 ([bold] 1) | " + "images/s " * 20 + "| mAP 0.5 (best)"
    display.say(message)
    assert output.getvalue() == message + "\n"


def test_losses_are_summed_and_listed():
    terms = {"coordinates": 0.5, "object": 0.73456}
    assert describe_losses(terms) == "loss 1.235 (coordinates 0.5, object 0.735)"
    assert describe_losses({}) == "loss 0.000 ()"
