"""Every config of the toolkit is valid and builds its detector; they are found by name."""

from pathlib import Path

import pytest

from detect.cli import main
from detect.config import PretrainConfig, load_config, load_experiment
from detect.configs import (
    find_config,
    is_pretraining,
    shipped_configs,
    shipped_folders,
    title_of,
)
from detect.data import VOC_CLASSES
from detect.errors import DetectError
from detect.experiment.model import build_detector
from detect.experiment.pretraining import build_classifier

PRETRAINING = [name for name in shipped_configs() if is_pretraining(name)]
COMPARED = [name for name in shipped_configs() if name.startswith("compare/")]
DETECTION = [name for name in shipped_configs() if name not in PRETRAINING]


@pytest.mark.parametrize("name", PRETRAINING)
def test_pretraining_config_builds(name):
    config, _ = load_experiment(name, [], PretrainConfig)
    assert build_classifier(config, 7).num_classes == 7


@pytest.mark.parametrize("name", DETECTION)
def test_config_builds(name):
    config, _ = load_config(name)
    classes = config.data.classes if isinstance(config.data.classes, list) else VOC_CLASSES
    detector = build_detector(config.without_weights(), len(classes))
    assert detector.num_classes == len(classes)
    for phase in detector.phase_names:
        assert config.settings_of(phase).epochs > 0


def test_the_compared_families_have_an_equal_budget():
    configs = [load_config(name)[0] for name in COMPARED]
    names = {config.detector["name"] for config in configs}
    assert names == {"sliding_window", "rcnn", "fast_rcnn", "faster_rcnn", "yolo"}
    for config in configs:
        assert (config.data, config.backbone) == (configs[0].data, configs[0].backbone)
        own = {**config.training, "learning_rate": 0}
        assert own == {**configs[0].training, "learning_rate": 0}


def test_yolo_voc_config_is_the_papers_recipe():
    config, _ = load_config("yolo_darknet_voc0712")
    settings = config.settings_of("train")
    assert (settings.epochs, settings.batch_size) == (135, 64)
    assert (settings.momentum, settings.weight_decay) == (0.9, 0.0005)
    assert (settings.learning_rate, settings.milestones) == (0.01, (75, 105))


# ---- by name ----------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *arguments):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(arguments)
    return capsys.readouterr().out


def test_names_stand_for_files():
    configs = shipped_configs()
    assert len(configs) >= 30
    assert configs["compare/yolo"].read_text() != configs["yolo_tiny_shapes"].read_text()
    assert list(shipped_folders()) == ["compare"]
    for name, file in configs.items():
        assert find_config(name) == file
        assert find_config(str(file)) == file
        assert find_config(Path(name)) == file


def test_a_file_of_ones_own_is_given_by_its_path(here):
    (here / "runs").mkdir()
    for folder in ("yolo_tiny_shapes", "compare"):  # a run of that name is no config
        (here / folder).mkdir()
    assert find_config("yolo_tiny_shapes") == shipped_configs()["yolo_tiny_shapes"]
    text = "seed: 5\n"
    for given in ("mine.yaml", "runs/yolo_tiny_shapes.yaml", "./plain"):
        Path(given).write_text(text)
        assert load_config(given)[0].seed == 5
    Path("rcnn_tiny_shapes.yaml").write_text(text)
    assert load_config("rcnn_tiny_shapes.yaml")[0].seed == 5
    with pytest.raises(DetectError, match=r"rcnn_tiny_shapes\.yaml is here as well; write"):
        load_config("rcnn_tiny_shapes")


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("configs/yolo_tiny_shapes.yaml", "did you mean yolo_tiny_shapes, which comes with"),
        ("configs/compare/yolo.yaml", "did you mean compare/yolo, which comes with"),
        ("yolo_tiny_shapes.yaml", "did you mean yolo_tiny_shapes, which comes with"),
        ("yolo_tinyshapes", "did you mean 'yolo_tiny_shapes'"),
        ("mein.yaml", "did you mean mine.yaml?"),
        ("nowhere/qqqqqq.yaml", "there are: "),
    ],
)
def test_a_config_that_is_not_there_gets_a_hint(here, given, hint):
    (here / "mine.yaml").write_text("")
    with pytest.raises(DetectError) as caught:
        load_config(given)
    assert str(caught.value).startswith(f"{given}: no such config file; {hint}")


def test_origins_name_the_config():
    _, origins = load_config("compare/yolo", ["training.epochs=1"])
    assert origins["seed",] == "compare/yolo:4"
    assert origins["training", "epochs"] == "command line"


def test_the_list_fits_a_terminal(capsys):
    lines = run(capsys, "configs").splitlines()
    assert max(map(len, lines)) <= 80
    by_command, names = {}, []
    for line in lines:
        if line.startswith("  "):
            names.append(line.split()[0])
            assert line.endswith("  " + title_of(shipped_configs()[names[-1]]))
        else:
            names = by_command.setdefault(line, [])
    assert by_command["detect pretrain NAME:"] == PRETRAINING
    assert by_command["detect compare compare, or detect train NAME:"] == COMPARED
    assert sum(map(len, by_command.values())) == len(shipped_configs())


def test_one_is_printed_as_it_is(capsys):
    assert run(capsys, "configs", "compare/rcnn") == find_config("compare/rcnn").read_text()


@pytest.mark.parametrize(
    ("arguments", "written", "then"),
    [
        (["yolo_tiny_shapes"], ["yolo_tiny_shapes.yaml"], "detect train yolo_tiny_shapes.yaml"),
        (["compare/yolo", "a.yaml"], ["a.yaml"], "detect train a.yaml"),
        (
            ["pretrain_tiny_shapes", "new/folder"],
            ["new/folder/pretrain_tiny_shapes.yaml"],
            "detect pretrain new/folder/pretrain_tiny_shapes.yaml",
        ),
        (["compare", "a"], [f"a{name[7:]}.yaml" for name in COMPARED], "detect compare a"),
        (["compare"], [f"{name}.yaml" for name in COMPARED], "detect compare compare"),
    ],
)
def test_a_copy_is_written_to_edit(here, capsys, arguments, written, then):
    assert run(capsys, "configs", *arguments, "--copy").rstrip().endswith(then)
    assert sorted(str(file.relative_to(here)) for file in here.rglob("*.yaml")) == written
    for file in written:
        name = arguments[0] if arguments[0] != "compare" else f"compare/{Path(file).stem}"
        assert Path(file).read_bytes() == find_config_file(name).read_bytes()


def find_config_file(name):
    return shipped_configs()[name]


@pytest.mark.parametrize(
    ("name", "file"),
    [("yolo_tiny_shapes", "yolo_tiny_shapes.yaml"), ("compare", "compare/yolo.yaml")],
)
def test_a_copy_replaces_nothing_unless_told_to(here, capsys, name, file):
    (here / "compare").mkdir()
    Path(file).write_text("mine")
    with pytest.raises(SystemExit, match="2"):
        main(["configs", name, "--copy"])
    assert f"{file} is there already; --force" in capsys.readouterr().err
    assert Path(file).read_text() == "mine"
    assert len(list(here.rglob("*.yaml"))) == 1, "half a folder was copied"
    run(capsys, "configs", name, "--copy", "--force")
    assert Path(file).read_text() == shipped_configs()[file.removesuffix(".yaml")].read_text()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["yolo_tiny_shape"], "did you mean 'yolo_tiny_shapes'"),
        (["yolo_tiny_shape", "--copy"], "did you mean 'yolo_tiny_shapes'"),
        (["qqqqqqqqqqq"], "there are: "),
        (["compare"], "compare/sliding_window"),
        (["--copy"], "NAME"),
        (["yolo_tiny_shapes", "a.yaml"], "--copy"),
        (["yolo_tiny_shapes", "--force"], "--copy"),
    ],
)
def test_what_cannot_be_shown_is_told(here, capsys, arguments, complaint):
    with pytest.raises(SystemExit, match="2"):
        main(["configs", *arguments])
    assert complaint in capsys.readouterr().err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["compare", "compare", "seed=x"], "command line: seed: "),
        (["compare", "rcnn_tiny_shapes", "seed=x"], "command line: seed: "),
        (["data", "show", "compare/yolo", "seed=x"], "command line: seed: "),
        (["ablation", "yolo_tiny_shapes"], "yolo_tiny_shapes: the table is of R-CNN's parts"),
        (["proposals", "yolo_tiny_shapes", "--split", "x"], "--split: of a config, expected train"),
    ],
)
def test_every_command_finds_a_config_by_name(here, capsys, arguments, complaint):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert f"error: {complaint}" in capsys.readouterr().err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["train"], "compare/yolo"),
        (["pretrain"], "pretrain_tiny_shapes"),
    ],
)
def test_commands_take_names(capsys, command, name):
    assert f"# {name}:" in run(capsys, *command, name, "--print-config")
