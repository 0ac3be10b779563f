import copy
import json
import math
import signal

import pytest
import torch
from torch.testing import assert_close

from detect.errors import DetectError, Interrupted
from detect.training import FitPhase, load_checkpoint
from detect.training import loop as loop_module
from detect.training.checkpoints import CheckpointFolder
from tests.training.tiny_training import (
    BATCH_SIZE,
    BATCHES,
    Brightness,
    Images,
    make_phase,
    make_run,
    make_settings,
)

SOON = 1e-9  # minutes
SPEEDS = ("images_per_second", "data_wait", "seconds", "peak_memory_mib")


class Killed(BaseException):
    """Ends a run where a power cut would."""


def lines_of(folder, kind=None):
    """The lines of metrics, without what is measured with a clock."""
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    return [
        {key: value for key, value in line.items() if key not in SPEEDS}
        for line in lines
        if kind in (None, line["kind"])
    ]


def assert_same_state(one, other):
    assert list(one) == list(other)
    for name, value in one.items():
        assert_close(value, other[name], rtol=0, atol=0)


def at_step(module, step, act):
    """The loss of `module`, with `act` called within its call number `step` (from 1)."""
    calls = 0

    def loss(batch):
        nonlocal calls
        calls += 1
        if calls == step:
            act()
        return module.loss(batch)

    return loss


def interrupt():
    signal.raise_signal(signal.SIGINT)


def kill():
    raise Killed


def brightness_score(module):
    def evaluate():
        # a sum of weights stands for a score: it differs whenever the weights do
        return {"map_area": module.output.weight.sum().item(), "map_11point": math.nan}

    return evaluate


def train(folder, phases_of, *, resume=False, seed=11, **engine):
    """A run of fresh objects, as a new process has them."""
    torch.manual_seed(seed)
    module = Brightness()
    run = make_run(module, folder, brightness_score(module), **engine)
    if resume:
        torch.manual_seed(999)  # whatever a new process drew before
        run.resume()
    run.run(phases_of(module))
    return module


def one_phase(settings=None):
    return lambda module: [make_phase(module, settings)]


def two_phases(module):
    first = make_phase(module.body, make_settings(epochs=2), name="body", loss=module.loss)
    return [first, make_phase(module, make_settings(epochs=2, optimizer="adamw"), name="all")]


def test_the_loss_falls(tmp_path):
    settings = make_settings(epochs=40, warmup_epochs=0.0)
    train(tmp_path, one_phase(settings))
    losses = [line["loss"] for line in lines_of(tmp_path, "train")]
    early, late = losses[: 2 * BATCHES], losses[-2 * BATCHES :]
    assert sum(late) < 0.3 * sum(early)


def test_the_journal_says_what_was_done(tmp_path):
    train(tmp_path, one_phase(make_settings(epochs=2, schedule="constant", warmup_factor=0.5)))
    lines = lines_of(tmp_path, "train")
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert [line["epoch"] for line in lines] == [1] * 5 + [2] * 5
    assert {line["phase"] for line in lines} == {"train"}
    rates = [0.05 * (0.5 + 0.1 * step) for step in range(5)] + [0.05] * 5
    assert [line["learning_rate"] for line in lines] == pytest.approx(rates)
    for line in lines:
        assert line["loss"] == pytest.approx(line["terms"]["mean"] + line["terms"]["contrast"])
    evaluations = lines_of(tmp_path, "evaluation")
    assert [(line["epoch"], line["step"]) for line in evaluations] == [(1, 5), (2, 10)]
    assert all(line["map_11point"] is None for line in evaluations)  # nan has no place in JSON
    raw = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for line in raw:
        if line["kind"] == "train":
            assert line["images_per_second"] > 0
            assert 0 <= line["data_wait"] <= 1


def test_lines_are_means_over_the_steps_since_the_last_one(tmp_path):
    train(tmp_path / "each", one_phase())
    train(tmp_path / "third", one_phase(make_settings(log_interval=3)))
    each = lines_of(tmp_path / "each", "train")
    third = lines_of(tmp_path / "third", "train")
    assert [line["step"] for line in third] == [3, 5, 8, 10, 13, 15]
    for line, (begin, end) in zip(third, [(0, 3), (3, 5), (5, 8), (8, 10)], strict=False):
        losses = [found["loss"] for found in each[begin:end]]
        assert line["loss"] == pytest.approx(sum(losses) / len(losses))


@pytest.mark.parametrize("step", [1, 3, 5, 9, 10, 15])
def test_an_interrupted_run_continues_as_if_nothing_had_been(tmp_path, step):
    expected = train(tmp_path / "whole", one_phase())

    def stopped(module):
        return [make_phase(module, loss=at_step(module, step, interrupt))]

    with pytest.raises(Interrupted, match=r"stopped by SIGINT.*last\.pt") as caught:
        train(tmp_path / "parts", stopped)
    assert caught.value.status == 130
    steps = [line["step"] for line in lines_of(tmp_path / "parts", "train")]
    assert steps == list(range(1, step + 1))  # the step was finished, and none after it
    resumed = train(tmp_path / "parts", one_phase(), resume=True)
    assert_same_state(resumed.state_dict(), expected.state_dict())
    assert lines_of(tmp_path / "parts") == lines_of(tmp_path / "whole")
    for name in ("last.pt", "best.pt"):
        whole = load_checkpoint(tmp_path / "whole" / "checkpoints" / name)
        parts = load_checkpoint(tmp_path / "parts" / "checkpoints" / name)
        assert_same_state(parts["detector"], whole["detector"])


def test_an_interrupted_run_keeps_the_losses_of_all_its_steps(tmp_path):
    settings = make_settings(log_interval=3)
    train(tmp_path / "whole", one_phase(settings))

    def stopped(module):
        return [make_phase(module, settings, loss=at_step(module, 7, interrupt))]

    with pytest.raises(Interrupted):
        train(tmp_path / "parts", stopped)
    train(tmp_path / "parts", one_phase(settings), resume=True)
    parts, whole = (lines_of(tmp_path / name, "train") for name in ("parts", "whole"))
    assert [line["step"] for line in parts] == [3, 5, 7, 8, 10, 13, 15]
    assert parts[3]["loss"] + 2 * parts[2]["loss"] == pytest.approx(3 * whole[2]["loss"])
    assert parts[:2] + parts[4:] == whole[:2] + whole[3:]


@pytest.mark.parametrize("step", [1, 2, 6, 8, 14])
def test_a_killed_run_continues_from_its_last_checkpoint(tmp_path, step):
    expected = train(tmp_path / "whole", one_phase())

    def stopped(module):
        return [make_phase(module, loss=at_step(module, step, kill))]

    with pytest.raises(Killed):
        train(tmp_path / "parts", stopped)
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "pha')  # a torn line
    resumed = train(tmp_path / "parts", one_phase(), resume=step > BATCHES)
    assert_same_state(resumed.state_dict(), expected.state_dict())
    assert lines_of(tmp_path / "parts") == lines_of(tmp_path / "whole")


def test_a_run_without_a_checkpoint_resumes_at_the_beginning(tmp_path):
    run = make_run(Brightness(), tmp_path)
    run.journal.write(kind="train", step=1)  # of an attempt that ended before its first checkpoint
    run.resume()
    run.run([make_phase(run.model, make_settings(epochs=1))])
    assert [line["step"] for line in lines_of(tmp_path, "train")] == [1, 2, 3, 4, 5]


def test_checkpoints_between_evaluations_can_be_continued(tmp_path):
    expected = train(tmp_path / "whole", one_phase(make_settings(log_interval=2)))

    def stopped(module):
        settings = make_settings(log_interval=2)
        return [make_phase(module, settings, loss=at_step(module, 9, kill))]

    with pytest.raises(Killed):
        train(tmp_path / "parts", stopped, checkpoint_minutes=SOON)
    position = load_checkpoint(tmp_path / "parts" / "checkpoints" / "last.pt")["training"][
        "position"
    ]
    # the checkpoint after step 7 (2 of the second epoch): the latest whose losses were written
    assert (position["epoch"], position["batch"], position["step"]) == (1, 2, 7)
    resumed = train(tmp_path / "parts", one_phase(make_settings(log_interval=2)), resume=True)
    assert_same_state(resumed.state_dict(), expected.state_dict())
    assert lines_of(tmp_path / "parts") == lines_of(tmp_path / "whole")


def test_a_run_that_was_killed_after_an_evaluation_evaluates_again_once(tmp_path, monkeypatch):
    expected = train(tmp_path / "whole", one_phase())
    save = loop_module.save_checkpoint

    def save_unless_best(path, content):
        if path.name == "best.pt":
            raise Killed
        save(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "save_checkpoint", save_unless_best)
        with pytest.raises(Killed):
            train(tmp_path / "parts", one_phase(), checkpoint_minutes=SOON)
    assert len(lines_of(tmp_path / "parts", "evaluation")) == 1
    resumed = train(tmp_path / "parts", one_phase(), resume=True)
    assert_same_state(resumed.state_dict(), expected.state_dict())
    assert lines_of(tmp_path / "parts") == lines_of(tmp_path / "whole")


def test_phases_run_in_order_with_their_own_settings(tmp_path):
    train(tmp_path, two_phases)
    lines = lines_of(tmp_path, "train")
    assert [line["phase"] for line in lines] == ["body"] * 10 + ["all"] * 10
    assert [line["epoch"] for line in lines] == ([1] * 5 + [2] * 5) * 2
    assert [line["step"] for line in lines] == list(range(1, 21))
    position = load_checkpoint(tmp_path / "checkpoints" / "last.pt")["training"]["position"]
    assert position["finished_phases"] == ["body", "all"]


def test_a_phase_trains_its_module_alone(tmp_path):
    module = Brightness()
    before = copy.deepcopy(module.state_dict())
    run = make_run(module, tmp_path)
    run.run([make_phase(module.body, make_settings(epochs=1), loss=module.loss)])
    after = module.state_dict()
    assert_close(after["output.weight"], before["output.weight"], rtol=0, atol=0)
    assert not torch.equal(after["body.1.weight"], before["body.1.weight"])


@pytest.mark.parametrize("step", [4, 10, 11, 15, 20])
def test_a_run_of_two_phases_that_was_interrupted_continues(tmp_path, step):
    expected = train(tmp_path / "whole", two_phases)
    calls = 0

    def stopped(module):
        def loss(batch):
            nonlocal calls
            calls += 1
            if calls == step:
                interrupt()
            return module.loss(batch)

        body = make_phase(module.body, make_settings(epochs=2), name="body", loss=loss)
        settings = make_settings(epochs=2, optimizer="adamw")
        return [body, make_phase(module, settings, name="all", loss=loss)]

    with pytest.raises(Interrupted):
        train(tmp_path / "parts", stopped)
    resumed = train(tmp_path / "parts", two_phases, resume=True)
    assert_same_state(resumed.state_dict(), expected.state_dict())
    assert lines_of(tmp_path / "parts") == lines_of(tmp_path / "whole")


def test_a_run_that_was_killed_between_phases_continues(tmp_path):
    expected = train(tmp_path / "whole", two_phases)

    class NoImages(Images):
        def explain(self, error):
            return error

        def epoch(self, epoch, start=0):  # noqa: ARG002
            raise Killed

    def stopped(module):
        first, second = two_phases(module)
        return [first, make_phase(module, second.settings, name="all", batches=NoImages())]

    with pytest.raises(Killed):
        train(tmp_path / "parts", stopped)
    resumed = train(tmp_path / "parts", two_phases, resume=True)
    assert_same_state(resumed.state_dict(), expected.state_dict())
    assert lines_of(tmp_path / "parts") == lines_of(tmp_path / "whole")


def test_a_finished_run_is_left_as_it_is(tmp_path):
    expected = train(tmp_path, two_phases)
    journal = (tmp_path / "metrics.jsonl").read_text()

    def must_not_run(module):
        return [
            make_phase(module, name=name, loss=at_step(module, 1, kill)) for name in ("body", "all")
        ]

    again = train(tmp_path, must_not_run, resume=True)
    assert_same_state(again.state_dict(), expected.state_dict())
    assert (tmp_path / "metrics.jsonl").read_text() == journal


def test_a_resumed_epoch_asks_for_the_rest_of_its_batches(tmp_path):
    module, images = Brightness(), Images()
    run = make_run(module, tmp_path)
    phase = make_phase(module, loss=at_step(module, 7, interrupt), batches=images)
    with pytest.raises(Interrupted):
        run.run([phase])
    assert images.taken == [(0, 0), (1, 0)]
    again = make_run(module, tmp_path)
    again.resume()
    again.run([make_phase(module, batches=images)])
    assert images.taken[2:] == [(1, 2), (2, 0)]


def run_with_scores(folder, scores, settings=None):
    """Train for one epoch per score; the weights at each evaluation and the run's module."""
    module, seen = Brightness(), []

    def evaluate():
        seen.append(copy.deepcopy(module.state_dict()))
        return {"map_area": scores[len(seen) - 1]}

    settings = settings or make_settings(epochs=len(scores))
    make_run(module, folder, evaluate).run([make_phase(module, settings)])
    return seen


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0.1, 0.5, 0.3], 1),
        ([0.5, 0.5, 0.5], 0),  # a tie goes to the earlier epoch
        ([0.1, 0.2, 0.3], 2),
        ([0.3, 0.2, 0.1], 0),
        ([math.nan, 0.0, math.nan], 1),
        ([0.2, math.nan, 0.1], 0),
        ([0.1, math.nan, 0.2], 2),
        ([math.nan, math.nan], 1),  # without any score, the latest
    ],
)
def test_the_best_checkpoint_is_of_the_best_epoch(tmp_path, scores, best):
    seen = run_with_scores(tmp_path, scores)
    content = load_checkpoint(tmp_path / "checkpoints" / "best.pt")
    assert_same_state(content["detector"], seen[best])
    assert content["position"]["epoch"] == best + 1
    assert content["scores"]["map_area"] == pytest.approx(scores[best], nan_ok=True)
    assert content["class_names"] == ["one"]
    assert "training" not in content  # no optimizer
    last = load_checkpoint(tmp_path / "checkpoints" / "last.pt")
    assert_same_state(last["detector"], seen[-1])


def test_the_best_score_is_remembered_by_a_resumed_run(tmp_path):
    module = Brightness()

    def evaluation(score):
        return lambda: {"map_area": score}

    stopping = at_step(module, 5, interrupt)
    with pytest.raises(Interrupted):
        make_run(module, tmp_path, evaluation(0.9)).run([make_phase(module, loss=stopping)])
    run = make_run(module, tmp_path, evaluation(0.8))
    run.resume()
    run.run([make_phase(module)])
    assert load_checkpoint(tmp_path / "checkpoints" / "best.pt")["position"]["epoch"] == 1


def test_the_last_epoch_is_always_evaluated(tmp_path):
    run_with_scores(tmp_path, [0.1, 0.2, 0.3], make_settings(epochs=5, evaluate_every=2))
    assert [line["epoch"] for line in lines_of(tmp_path, "evaluation")] == [2, 4, 5]


def test_without_an_evaluation_there_is_no_best(tmp_path):
    module = Brightness()
    make_run(module, tmp_path, None).run([make_phase(module, make_settings(epochs=1))])
    assert not (tmp_path / "checkpoints" / "best.pt").exists()
    assert (tmp_path / "checkpoints" / "last.pt").exists()
    assert lines_of(tmp_path, "evaluation") == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, value):
    train(tmp_path / "before", one_phase(make_settings(epochs=1)))

    def failing(module):
        calls = 0

        def loss(batch):
            nonlocal calls
            calls += 1
            terms = module.loss(batch)
            return {**terms, "mean": terms["mean"] * value} if calls == 8 else terms

        return [make_phase(module, make_settings(log_interval=4), loss=loss)]

    with pytest.raises(DetectError) as caught:
        train(tmp_path / "run", failing, checkpoint_minutes=SOON)
    message = str(caught.value)
    assert message.startswith("the loss of step 8 is not finite (mean ")
    assert f"(mean {value:g}, contrast 0." in message
    names = ", ".join(f"image_1_2_{number}" for number in range(BATCH_SIZE))
    path = tmp_path / "run" / "not_finite" / "step_00000008.pt"
    assert f"Its images: {names}. The batch is in {path}. Lower training.learn" in message
    content = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    assert content["training"]["position"]["step"] == 5  # the end of the first epoch
    assert all(bool(v.isfinite().all()) for v in content["detector"].values())
    steps = [line["step"] for line in lines_of(tmp_path / "run", "train")]
    assert max(steps) == 5


def test_an_interruption_does_not_store_a_loss_that_is_not_finite(tmp_path):
    def failing(module):
        calls = 0

        def loss(batch):
            nonlocal calls
            calls += 1
            if calls == 8:
                interrupt()
            terms = module.loss(batch)
            return {**terms, "mean": terms["mean"] * math.nan} if calls == 7 else terms

        return [make_phase(module, make_settings(log_interval=5), loss=loss)]

    with pytest.raises(DetectError, match="the loss of step 7 is not finite"):
        train(tmp_path, failing)
    content = load_checkpoint(tmp_path / "checkpoints" / "last.pt")
    assert content["training"]["position"]["step"] == 5


def test_the_gradient_is_clipped(tmp_path):
    def change(clip, folder):
        module = Brightness()
        before = {name: value.detach().clone() for name, value in module.named_parameters()}
        settings = make_settings(
            epochs=1,
            gradient_clip=clip,
            learning_rate=1.0,
            momentum=0.0,
            weight_decay=0.0,
            schedule="constant",
            warmup_epochs=0.0,
        )

        def loss(batch):
            return {"mean": module.loss(batch)["mean"] * 100}

        phase = make_phase(module, settings, loss=loss, batches=Images(1))
        make_run(module, folder).run([phase])
        steps = [value.detach() - before[name] for name, value in module.named_parameters()]
        return float(torch.cat([step.flatten() for step in steps]).norm())

    assert change(0.25, tmp_path / "clipped") == pytest.approx(0.25, rel=1e-4)
    assert change(None, tmp_path / "free") > 1


def test_the_terms_are_summed_without_weights(tmp_path):
    # one step of plain SGD by hand
    torch.manual_seed(5)
    module, reference = Brightness(), Brightness()
    settings = make_settings(
        epochs=1, momentum=0.0, weight_decay=0.0, schedule="constant", warmup_epochs=0.0
    )
    images = Images(1)
    state = torch.get_rng_state()
    run = make_run(module, tmp_path)
    run.run([make_phase(module, settings, batches=images)])
    torch.set_rng_state(state)
    terms = reference.train().loss(images.batch(0, 0))
    (terms["mean"] + terms["contrast"]).backward()
    for mine, theirs in zip(module.parameters(), reference.parameters(), strict=True):
        assert theirs.grad is not None
        assert_close(mine.detach(), theirs.detach() - 0.05 * theirs.grad)


def test_a_checkpoint_without_the_state_of_training_is_refused(tmp_path):
    train(tmp_path, one_phase(make_settings(epochs=1)))
    folder = tmp_path / "checkpoints"
    (folder / "best.pt").replace(folder / "last.pt")
    with pytest.raises(DetectError, match=r"expected the state of a training of a detector"):
        make_run(Brightness(), tmp_path).resume()


def test_a_phase_of_an_unknown_kind_is_refused(tmp_path):
    class Strange:
        name = "strange"

    with pytest.raises(TypeError, match="no way to run a Strange"):
        make_run(Brightness(), tmp_path).run([Strange()])


def fit_bias(module, value, act=None):
    def fit(watch):
        watch(0, 1)
        if act is not None:
            act()
        with torch.no_grad():
            module.output.bias.fill_(value)

    return FitPhase("fit", fit)


def fit_between(act=None):
    return lambda module: [make_phase(module), fit_bias(module, 0.25, act)]


def test_a_step_without_descent_leaves_its_result_in_the_checkpoint(tmp_path):
    module = train(tmp_path, fit_between())
    assert_close(module.output.bias.detach(), torch.full((2,), 0.25))
    content = load_checkpoint(tmp_path / "checkpoints" / "last.pt")
    assert content["training"]["position"]["finished_phases"] == ["train", "fit"]
    assert_same_state(content["detector"], module.state_dict())


def test_a_finished_step_without_descent_is_not_done_again(tmp_path):
    expected = train(tmp_path, fit_between())
    again = train(tmp_path, fit_between(act=kill), resume=True)
    assert_same_state(again.state_dict(), expected.state_dict())


def test_an_interrupt_lets_a_step_without_descent_finish(tmp_path):
    with pytest.raises(Interrupted):
        train(tmp_path, fit_between(act=interrupt))
    content = load_checkpoint(tmp_path / "checkpoints" / "last.pt")
    assert content["training"]["position"]["finished_phases"] == ["train", "fit"]


def test_an_interrupt_ends_a_step_without_descent_where_it_watches(tmp_path):
    def fit(watch):
        for done in range(5):
            watch(done, 5)
            interrupt()

    with pytest.raises(Interrupted):
        train(tmp_path, lambda module: [make_phase(module), FitPhase("fit", fit)])
    content = load_checkpoint(tmp_path / "checkpoints" / "last.pt")
    assert content["training"]["position"]["finished_phases"] == ["train"]


def test_the_state_after_a_last_step_without_descent_is_the_best(tmp_path):
    module = train(tmp_path, fit_between())
    best = load_checkpoint(tmp_path / "checkpoints" / "best.pt")
    assert_same_state(best["detector"], module.state_dict())
    assert set(best["scores"]) == set(load_checkpoint_scores(tmp_path))


def load_checkpoint_scores(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "evaluation"][-1]
    assert last["phase"] == "fit"
    return {
        key: value for key, value in last.items() if key not in ("kind", "phase", "epoch", "step")
    }


def test_a_step_without_descent_that_was_killed_begins_anew(tmp_path):
    expected = train(tmp_path / "whole", fit_between())
    with pytest.raises(Killed):
        train(tmp_path / "cut", fit_between(act=kill))
    again = train(tmp_path / "cut", fit_between(), resume=True)
    assert_same_state(again.state_dict(), expected.state_dict())


@pytest.mark.parametrize("save", range(1, 5))
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_run_killed_at_a_checkpoint_has_every_line_of_the_journal_once(
    tmp_path, monkeypatch, save, moment
):
    """Three of the checkpoints end epochs, one the descent, one the step without descent."""

    def phases(module):
        return [make_phase(module), fit_bias(module, 0.25)]

    train(tmp_path / "whole", phases)
    write, calls = CheckpointFolder.save, 0

    def save_and_die(folder, step, content):
        nonlocal calls
        calls += 1
        if moment == "after" or calls <= save:
            write(folder, step, content)
        if calls > save:
            kill()

    monkeypatch.setattr(CheckpointFolder, "save", save_and_die)
    with pytest.raises(Killed):
        train(tmp_path / "cut", phases)
    monkeypatch.undo()
    train(tmp_path / "cut", phases, resume=True)
    assert lines_of(tmp_path / "cut") == lines_of(tmp_path / "whole")
