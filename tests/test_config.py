import dataclasses
from typing import Literal

import pytest
import yaml

from detect.config import Config, PretrainConfig, describe, load_config, load_experiment, resolve
from detect.configs import shipped_configs
from detect.data import Augmentation
from detect.detectors import DETECTORS, YOLO
from detect.errors import DetectError
from detect.experiment.model import build_detector
from detect.experiment.model import load as load_model
from detect.settings import Settings, read_settings
from detect.training import GradientSettings, load_checkpoint, save_checkpoint


@pytest.fixture
def write(tmp_path):
    """Writes a config and gives its path."""

    def write(text, name="config.yaml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


@pytest.fixture
def load(write):
    """The config of a text and overrides."""
    return lambda text, *overrides: load_config(write(text), overrides)[0]


@pytest.fixture
def faults(write):
    """The lines of the error that a text and overrides end in, without the folder."""

    def faults(text, *overrides):
        path = write(text)
        with pytest.raises(DetectError) as caught:
            load_config(path, overrides)
        return str(caught.value).replace(f"{path.parent}/", "").splitlines()

    return faults


@pytest.fixture
def _two_step():
    """A detector with two phases, in the registry while the test runs."""

    class TwoStep(YOLO):
        phase_names = ("classify", "regress")

        def __init__(self, backbone, num_classes, *, depth: int = 2, kind: Literal["a", "b"] = "a"):
            raise NotImplementedError

    DETECTORS.register("two_step")(TwoStep)
    yield
    del DETECTORS._entries["two_step"]


# --- what a config is ---------------------------------------------------------------------------


def test_an_empty_config_is_the_defaults(load):
    for text in ("", "# nothing\n", "data: {}\n"):
        config = load(text)
        assert config.seed == 0
        assert config.data.kind == "voc"
        assert (config.data.train_split, config.data.val_split) == ("train", "val")
        assert config.data.on_error == "stop"
        assert (config.backbone.name, config.backbone.weights) == ("tiny", "none")
        assert config.detector["name"] == "yolo"
        assert config.evaluation.iou_threshold == 0.5
        assert config.settings_of("train") == GradientSettings()


def test_every_key_of_detector_training_and_augmentation_is_present(load):
    config = load("")
    assert {field.name for field in dataclasses.fields(GradientSettings)} == set(config.training)
    assert config.data.augmentation is not None
    assert "horizontal_flip" in config.data.augmentation
    Augmentation(**config.data.augmentation)
    assert {"name", "grid_size", "variant", "iou_threshold"} <= set(config.detector)


def test_values_reach_what_they_are_for(load):
    config = load(
        "seed: 7\n"
        "data:\n"
        "  root: [a, b]\n"
        "  train_split: [train, null]\n"
        "  val_split: null\n"
        "  classes: [cat, dog]\n"
        "  augmentation: {hue: 0.1, extra: [{name: GaussianBlur, p: 0.1}]}\n"
        "backbone: {name: vgg16, weights: file.pth, freeze: [batch_norm, C2]}\n"
        "detector: {name: yolo, input_size: [240, 320], boxes_per_cell: 3}\n"
        "training: {epochs: 5, milestones: [2, 4], gradient_clip: null}\n"
        "evaluation: {iou_threshold: 0.75}\n"
    )
    assert config.seed == 7
    assert config.data.root == ["a", "b"]
    assert config.data.train_split == ["train", None]
    assert config.data.val_split is None
    assert config.data.classes == ["cat", "dog"]
    assert config.data.augmentation is not None
    assert config.data.augmentation["hue"] == 0.1
    assert config.data.augmentation["extra"] == [{"name": "GaussianBlur", "p": 0.1}]
    assert config.backbone.freeze == ["batch_norm", "C2"]
    assert config.detector_options["input_size"] == (240, 320)
    assert config.detector_options["boxes_per_cell"] == 3
    assert "name" not in config.detector_options
    settings = config.settings_of("train")
    assert (settings.epochs, settings.milestones, settings.gradient_clip) == (5, (2, 4), None)
    assert config.evaluation.iou_threshold == 0.75


@pytest.mark.parametrize("kind", ["coco", "yolo", "auto"])
def test_formats_that_name_their_classes_need_none(load, kind):
    config = load(f"data: {{kind: {kind}}}")
    assert config.data.classes == "auto"
    assert resolve(Settings(config.as_dict(), {}), "it").data.classes == "auto"
    assert load(f"data: {{kind: {kind}, classes: voc}}").data.classes == "voc"
    assert load("data: {kind: voc}").data.classes == "voc"


def test_augmentation_can_be_switched_off(load):
    assert load("data: {augmentation: null}").data.augmentation is None


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "0.001", "'0.001'"])
def test_a_number_is_a_number_however_it_is_written(load, text):
    # YAML 1.1 reads 1e-3, without a dot, as text
    config = load(f"training: {{learning_rate: {text}, train: {{weight_decay: {text}}}}}")
    rate = config.training["learning_rate"]
    assert (rate, type(rate)) == (0.001, float)
    decay = config.training["train"]["weight_decay"]
    assert (decay, type(decay)) == (0.001, float)
    assert config.settings_of("train").learning_rate == 0.001
    assert load("", f"training.learning_rate={text}").training["learning_rate"] == 0.001


def test_without_weights_nothing_else_changes(load):
    config = load("backbone: {weights: imagenet, freeze: [C2]}\nseed: 4\n")
    changed = config.without_weights()
    assert changed.backbone.weights == "none"
    assert changed.backbone.freeze == ["C2"]
    assert changed.seed == 4
    assert config.backbone.weights == "imagenet"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "data: {augmentation: null, val_split: null}",
        "data: {root: [a, b], train_split: [x, null], augmentation: {extra: [{name: Blur}]}}",
        "detector: {input_size: [240, 320], grid_stride: null}\ntraining: {milestones: [1, 2]}",
        "training: {learning_rate: 1e-3, train: {epochs: 2, learning_rate: 1e-2}}",
        "data: {augmentation: {hue: 0.1}}",
    ],
)
def test_plain_data_resolves_to_the_same_config(load, text):
    config = load(text)
    plain = config.as_dict()
    assert yaml.safe_load(yaml.safe_dump(plain)) == plain
    again = resolve(Settings(plain, {}), "a test")
    assert again == config
    assert again.as_dict() == plain
    assert again.settings_of("train") == config.settings_of("train")
    assert again.detector_options == config.detector_options


@pytest.mark.parametrize("path", list(shipped_configs().values()), ids=lambda p: p.stem)
def test_the_shipped_configs_are_legal(path):
    model = PretrainConfig if path.stem.startswith("pretrain_") else Config
    config, _ = load_experiment(path, [], model)
    assert config.phase_names
    for phase in config.phase_names:
        config.settings_of(phase)


# --- files that cannot be read ------------------------------------------------------------------


def test_a_missing_file_suggests_its_neighbor(write, tmp_path):
    write("", "yolo_tiny_shapes.yaml")
    with pytest.raises(DetectError) as caught:
        load_config(tmp_path / "yolo_tiny_shape.yaml")
    assert str(caught.value) == (
        f"{tmp_path / 'yolo_tiny_shape.yaml'}: no such config file; "
        f"did you mean {tmp_path / 'yolo_tiny_shapes.yaml'}?"
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("seed: 1\ndata: {root: [a}\n", "config.yaml:2: expected YAML: "),
        ("seed: 1\n\ntraining:\n\tepochs: 5\n", "config.yaml:4: expected YAML: found character"),
        ("seed: 'a\n", "config.yaml:2: expected YAML: "),
        ("seed: !!python/object:os.system {}\n", "config.yaml:1: expected YAML: could not determ"),
        ("a: 1\n---\nb: 2\n", "config.yaml:2: expected YAML: "),
        ("seed: 1\n? {a: 1}\n: 2\n", "config.yaml:2: expected YAML: found unhashable key"),
        ("seed: 2020-99-99\n", "config.yaml:1: expected YAML: '2020-99-99' is no value"),
        ("data: &a {root: *a}\n", "config.yaml:1: expected YAML: an alias stands within"),
        ("a: \x00\n", "config.yaml: expected YAML: unacceptable character"),
    ],
)
def test_bad_yaml_is_located(faults, text, complaint):
    found = faults(text)
    assert len(found) == 1
    assert found[0].startswith(complaint)


def test_files_of_another_kind_are_readable_errors(tmp_path):
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "config.yaml", tmp_path):
        with pytest.raises(DetectError, match="expected a YAML file in UTF-8: "):
            load_config(path)


@pytest.mark.parametrize(
    ("text", "kind"), [("[a, b]", "list"), ("just words", "str"), ("5", "int")]
)
def test_a_config_is_sections(faults, text, kind):
    assert faults(text) == [
        f"config.yaml: expected sections such as 'data:' and 'training:', found {kind}"
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "seed: 1\ndata: {}\nseed: 2\n",
            "config.yaml:3: seed is set twice, first in config.yaml:1; remove one of them",
        ),
        (
            "training:\n  epochs: 1\n  momentum: 0.5\n  epochs: 2\n",
            "config.yaml:4: training.epochs is set twice, first in config.yaml:2; "
            "remove one of them",
        ),
    ],
)
def test_a_key_that_stands_twice_is_refused(faults, text, complaint):
    assert faults(text) == [complaint]


# --- keys that do not exist ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("trainig: {}", ":1: trainig: unknown key; did you mean 'training'?"),
        ("a: 1\n", ":1: a: unknown key; there are: seed, data, backbone, detector, training, en"),
        ("\nlearning_rate: 1", ":2: learning_rate: unknown key; did you mean training.learning_"),
        ("on_error: skip", ":1: on_error: unknown key; did you mean data.on_error?"),
        (
            "batch_size: 3",
            ":1: batch_size: unknown key; did you mean evaluation.batch_size or "
            "training.batch_size?",
        ),
        ("training:\n  epoch: 5", ":2: training.epoch: unknown key; did you mean 'epochs'?"),
        ("data:\n  clases: voc", ":2: data.clases: unknown key; did you mean 'classes'?"),
        ("data: {freeze: []}", ":1: data.freeze: unknown key; did you mean backbone.freeze?"),
        ("backbone: {weigths: x}", ":1: backbone.weigths: unknown key; did you mean 'weights'?"),
        ("evaluation: {iou: 1}", ":1: evaluation.iou: unknown key; "),
        (
            "detector:\n  name: yolo\n  boxes_pr_cell: 1",
            ":3: detector.boxes_pr_cell: unknown key; did you mean 'boxes_per_cell'?",
        ),
        ("detector: {backbone: 1}", ":1: detector.backbone: unknown key; "),
        ("detector: {name: yola}", ":1: detector.name: unknown detector 'yola'; did you mean 'yol"),
        (
            "data:\n  augmentation:\n    horizontal_flips: 1",
            ":3: data.augmentation.horizontal_flips: unknown key; did you mean 'horizontal_flip'",
        ),
        (
            "training:\n  train:\n    epoch: 1",
            ":3: training.train.epoch: unknown key; did you mean 'epochs'?",
        ),
        ("training: {trian: {epochs: 1}}", ":1: training.trian: unknown key; did you mean 'train'"),
    ],
)
def test_an_unknown_key_gets_the_nearest_one(faults, text, complaint):
    found = faults(text)
    assert len(found) == 1
    assert found[0].startswith(f"config.yaml{complaint}")


# --- values that are wrong ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("seed: -1", ":1: seed: input should be greater than or equal to 0, found -1"),
        ("seed: 100000000000000000000", ":1: seed: input should be less than "),
        (
            "data:\n  kind: csv",
            ":2: data.kind: unknown kind 'csv'; there are: auto, coco",
        ),
        ("data: {kind: figure}", ":1: data.kind: unknown kind 'figure'; did you mean 'figures'?"),
        ("data: {kind: folders}", ":1: data.kind: unknown kind 'folders'; there are: auto, "),
        ("data: 5", ":1: data: "),
        ("data: {num_workers: -1}", ":1: data.num_workers: input should be greater than or equal"),
        (
            "data: {root: 5}",
            ":1: data.root: input should be a valid string or a valid list, found 5",
        ),
        (
            "data: {val_split: [a, 3]}",
            ":1: data.val_split.1: input should be a valid string, found",
        ),
        ("data: {classes: vok}", ":1: data.classes: input should be 'voc' or 'auto' or a valid l"),
        ("detector: {input_size: x}", ":1: detector.input_size: input should be a valid integer"),
        ("backbone: {freeze: C2}", ":1: backbone.freeze: input should be a valid list, found 'C2'"),
        ("training: {epochs: 2.5}", ":1: training.epochs: "),
        ("training: {epochs: many}", ":1: training.epochs: input should be a valid integer"),
        ("training:\n  epochs: 0", ":2: training.epochs: expected 1 or more, found 0"),
        ("training: {train: 5}", ":1: training.train: "),
        ("training: {milestones: [1, x]}", ":1: training.milestones.1: input should be a valid in"),
        ("training: {schedule: step}", ":1: training.milestones: the schedule 'step' needs the ep"),
        ("training: {schedule: cosinus}", ":1: training.schedule: input should be 'constant', 's"),
        (
            "training:\n  train:\n    learning_rate: -1",
            ":3: training.train.learning_rate: expected more than 0, found -1.0",
        ),
        ("evaluation: {iou_threshold: 0}", ":1: evaluation.iou_threshold: input should be greater"),
        ("evaluation: {iou_threshold: .nan}", ":1: evaluation.iou_threshold: input should be less"),
        ("detector: {variant: new}", ":1: detector.variant: input should be 'paper' or 'modern',"),
        ("data: {augmentation: {hue: red}}", ":1: data.augmentation.hue: input should be a valid"),
        ("data: {augmentation: 5}", ":1: data.augmentation: input should be a valid dictionary, f"),
    ],
)
def test_a_wrong_value_is_located(faults, text, complaint):
    found = faults(text)
    assert len(found) == 1
    assert found[0].startswith(f"config.yaml{complaint}")


def test_each_bad_element_of_a_list_is_a_fault(faults):
    assert faults("training: {milestones: [x, 1, y]}") == [
        f"config.yaml:1: training.milestones.{index}: input should be a valid integer, unable to "
        f"parse string as an integer, found '{value}'"
        for index, value in ((0, "x"), (2, "y"))
    ]


def test_all_faults_are_reported_together(faults):
    found = faults(
        "seed: 1\n"
        "data:\n"
        "  augmentation: {huge: 1}\n"
        "detector:\n"
        "  name: yolo\n"
        "  boxes: 2\n"
        "training:\n"
        "  epoch: 5\n"
        "  momentum: x\n",
        "training.gama=1",
    )
    assert sorted(line.partition(" unknown key")[0] for line in found) == [
        "command line: training.gama:",
        "config.yaml:3: data.augmentation.huge:",
        "config.yaml:6: detector.boxes:",
        "config.yaml:8: training.epoch:",
        "config.yaml:9: training.momentum: input should be a valid number, unable to parse string "
        "as a number, found 'x'",
    ]


def test_faults_of_several_sections_are_reported_together(faults):
    found = faults("seeds: 1\ndata: {kinds: voc}\nevaluation: {iou_threshold: 2}\n")
    assert {line.split(": ")[1] for line in found} == {
        "seeds",
        "data.kinds",
        "evaluation.iou_threshold",
    }


# --- overrides ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=5", "seed", 5),
        ("training.epochs=5", "training.epochs", 5),
        ("training.learning_rate=2e-4", "training.learning_rate", 2e-4),
        ("training.gradient_clip=null", "training.gradient_clip", None),
        ("training.milestones=[1, 2]", "training.milestones", [1, 2]),
        ("training={epochs: 5}", "training.epochs", 5),
        ("data.val_split=", "data.val_split", None),
        ("data.root=a=b", "data.root", "a=b"),
        ("data.classes=[cat, dog]", "data.classes", ["cat", "dog"]),
        ("data.augmentation.hue=0.25", "data.augmentation.hue", 0.25),
        ("data.augmentation=null", "data.augmentation", None),
        ("backbone.weights='none'", "backbone.weights", "none"),
        ("detector.input_size=[64, 96]", "detector.input_size", [64, 96]),
        ("training.train.epochs=3", "training.train.epochs", 3),
        (" training.epochs = 7 ", "training.epochs", 7),
    ],
)
def test_an_override_wins(load, override, path, value):
    config = load("seed: 1\ntraining: {epochs: 9, momentum: 0.5}\ndata: {root: x}\n", override)
    found = config.as_dict()
    for key in path.split("."):
        found = found[key]
    assert found == value
    assert type(found) is type(value)
    if not override.startswith("training={"):
        assert config.training["momentum"] == 0.5  # its neighbors stay


def test_the_last_override_wins(load):
    assert load("", "seed=1", "seed=2").seed == 2


def test_overrides_fill_an_empty_section(load):
    assert load("training:\n", "training.epochs=3").training["epochs"] == 3


def test_an_empty_section_is_its_defaults(load):
    config = load("data:\ntraining:\ndetector:\nbackbone:\nevaluation:\n")
    assert config == load("")


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("epochs", "command line: expected key.sub=value, such as training.epochs=5, found 'epoc"),
        ("=5", "command line: expected key.sub=value, such as training.epochs=5, found '=5'"),
        ("training..epochs=5", "command line: expected key.sub=value, such as training.epochs=5,"),
        ("seed=[1", "command line: 'seed=[1': the value is not YAML: "),
        ("seed=2020-99-99", "command line: 'seed=2020-99-99': the value is not YAML: "),
        ("seed.x=1", "command line: 'seed.x=1': seed is a value, not a section"),
        ("data.root.a.b=1", "command line: 'data.root.a.b=1': data.root is a value, not a sectio"),
        ("training.epoch=5", "command line: training.epoch: unknown key; did you mean 'epochs'?"),
        ("training.epochs=x", "command line: training.epochs: input should be a valid integer"),
        ("trainning.epochs=5", "command line: trainning: unknown key; did you mean 'training'?"),
        ("training.epochs=0", "command line: training.epochs: expected 1 or more, found 0"),
    ],
)
def test_a_bad_override_is_a_readable_error(faults, override, complaint):
    found = faults("seed: 3\ndata: {root: x}\n", override)
    assert len(found) == 1
    assert found[0].startswith(complaint)


# --- phases -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_two_step")
def test_a_phase_has_the_common_settings_and_its_own_over_them(load):
    config = load(
        "detector: {name: two_step, depth: 3}\n"
        "training:\n"
        "  epochs: 9\n"
        "  momentum: 0.5\n"
        "  regress: {epochs: 2, optimizer: adamw}\n"
    )
    assert config.detector == {"name": "two_step", "depth": 3, "kind": "a"}
    assert config.detector_options == {"depth": 3, "kind": "a"}
    first, second = config.settings_of("classify"), config.settings_of("regress")
    assert (first.epochs, first.optimizer, first.momentum) == (9, "sgd", 0.5)
    assert (second.epochs, second.optimizer, second.momentum) == (2, "adamw", 0.5)
    assert resolve(Settings(config.as_dict(), {}), "a test") == config


def test_a_number_of_a_detector_that_is_out_of_range_is_located(faults):
    section = "detector:\n  name: sliding_window\n  offsets: 0\n  scales: [1.0, -2]\n"
    assert faults(section) == [
        "config.yaml:4: detector.scales.1: expected more than 0, found -2",
        "config.yaml:3: detector.offsets: expected 1 or more, found 0",
    ]


@pytest.mark.usefixtures("_two_step")
def test_a_fault_of_a_phase_is_located(faults):
    head = "detector: {name: two_step}\n"
    assert faults(head + "training:\n  regress:\n    epochs: 0\n") == [
        "config.yaml:4: training.regress.epochs: expected 1 or more, found 0"
    ]
    # 'step' in the phase, without milestones anywhere
    assert faults(head + "training:\n  regress:\n    schedule: step\n")[0].startswith(
        "config.yaml:2: training.milestones: the schedule 'step' needs"
    )
    assert faults(head + "training: {regres: {epochs: 1}}\n") == [
        "config.yaml:2: training.regres: unknown key; did you mean 'regress'?"
    ]
    assert faults(head + "training:\n  epochs: 0\n") == [
        "config.yaml:3: training.epochs: expected 1 or more, found 0"
    ]


@pytest.mark.usefixtures("_two_step")
def test_phases_of_another_detector_are_unknown(faults):
    found = faults("detector: {name: yolo}\ntraining: {regress: {epochs: 1}}\n")
    assert found[0].startswith("config.yaml:2: training.regress: unknown key; ")


@pytest.mark.usefixtures("_two_step")
def test_common_settings_may_be_completed_by_the_phases(load):
    config = load(
        "detector: {name: two_step}\n"
        "training:\n"
        "  schedule: step\n"
        "  classify: {milestones: [1]}\n"
        "  regress: {schedule: cosine}\n"
    )
    assert config.settings_of("classify").milestones == (1,)
    assert config.settings_of("regress").schedule == "cosine"


# --- keys that were renamed -----------------------------------------------------------------------

RENAMED = {
    "data.picture_cache": ("data.image_cache", ""),
    "detector.regions_per_picture": ("detector.regions_per_image", "fast_rcnn"),
    "detector.anchors_per_picture": ("detector.anchors_per_image", "faster_rcnn"),
}


def value_at(config, path):
    section, key = path.split(".")
    return config.as_dict()[section][key]


@pytest.mark.parametrize("old", RENAMED)
def test_the_earlier_name_of_a_key_holds(load, write, old):
    new, detector = RENAMED[old]
    section, key = old.split(".")
    common = f"detector: {{name: {detector}}}\n" if detector else ""
    if section == "detector":
        text = f"detector:\n  name: {detector}\n  {key}: 37\n"
    else:
        text = f"{common}{section}:\n  {key}: 37\n"
    assert value_at(load(common), new) != 37
    config, origins = load_config(write(text, "old.yaml"))
    assert value_at(config, new) == 37
    assert key not in config.as_dict()[section]
    assert origins[tuple(new.split("."))].endswith(f":{text.count(chr(10))}")
    assert value_at(load(common, f"{old}=37"), new) == 37
    assert value_at(load(text, f"{old}=38"), new) == 38
    assert value_at(load(text, f"{new}=38"), new) == 38
    assert value_at(load(text.replace(key, new.split(".")[1]), f"{old}=38"), new) == 38
    whole = f"{section}={{{f'name: {detector}, ' if detector else ''}{key}: 39}}"
    assert value_at(load(common, whole), new) == 39


@pytest.mark.parametrize("old", RENAMED)
def test_the_earlier_and_the_present_name_of_a_key_are_not_set_together(faults, old):
    new, detector = RENAMED[old]
    section, key = old.split(".")
    name = f"  name: {detector}\n" if detector else ""
    text = f"{section}:\n{name}  {key}: 37\n  {new.split('.')[1]}: 37\n"
    (found,) = faults(text)
    assert found.startswith(f"config.yaml:{3 if detector else 2}: ")
    assert old in found
    assert new in found
    assert "delete one of the two" in found


def test_a_checkpoint_with_the_earlier_names_is_loaded(tmp_path, load):
    config = load(
        "data: {image_cache: 3}\n"
        "detector: {name: faster_rcnn, input_size: 64, shorter_side: 64, rpn_channels: 16, "
        "head: mlp, hidden_features: [8], regions_per_image: 37, anchors_per_image: 41}\n"
    )
    values = config.as_dict()
    for old, (new, _) in RENAMED.items():
        section, key = old.split(".")
        values[section][key] = values[section].pop(new.split(".")[1])
    detector = build_detector(config, 1)
    content = {"detector": detector.state_dict(), "class_names": ["thing"], "config": values}
    save_checkpoint(tmp_path / "old.pt", content)
    assert "regions_per_picture" in load_checkpoint(tmp_path / "old.pt")["config"]["detector"]
    assert load_model(tmp_path / "old.pt", "cpu").config == config
    changed = load_model(tmp_path / "old.pt", "cpu", ["detector.regions_per_picture=5"])
    assert value_at(changed.config, "detector.regions_per_image") == 5


# --- the description ----------------------------------------------------------------------------


def origins_in(text):
    """Path of each key in a description → its origin."""
    origins, path = {}, []
    for line in text.splitlines():
        values, _, origin = line.partition("  # ")
        key = values.split(":")[0]
        depth = (len(key) - len(key.lstrip())) // 2
        path[depth:] = [key.strip()]
        origins[".".join(path)] = origin.strip()
    return origins


def test_the_description_says_where_each_value_comes_from(write):
    path = write(
        "seed: 1\n"
        "data:\n"
        "  root: here\n"
        "  augmentation:\n"
        "    hue: 0.1\n"
        "    saturation: 2\n"
        "training:\n"
        "  epochs: 5\n"
        "  momentum: 0.5\n"
        "  train:\n"
        "    gamma: 0.3\n"
    )
    overrides = [
        "training.momentum=0.7",
        "data.augmentation.hue=0.2",
        "backbone={name: vgg16}",
        "evaluation.batch_size=4",
    ]
    origins = origins_in(describe(*load_config(path, overrides)))
    expected = {
        "seed": f"{path}:1",
        "data": "",
        "data.root": f"{path}:3",
        "data.kind": "default",
        "data.augmentation.hue": "command line",
        "data.augmentation.saturation": f"{path}:6",
        "data.augmentation.exposure": "default",
        "backbone.name": "command line",
        "backbone.weights": "default",
        "detector.name": "default",
        "training.epochs": f"{path}:8",
        "training.momentum": "command line",
        "training.learning_rate": "default",
        "training.train.gamma": f"{path}:11",
        "evaluation.batch_size": "command line",
        "evaluation.iou_threshold": "default",
    }
    assert {key: origins.get(key) for key in expected} == expected


def test_a_merged_mapping_keeps_its_lines(write):
    path = write("data:\n  augmentation: &a {hue: 0.1}\ntraining:\n  <<: {epochs: 5, gamma: 0.5}\n"
                 "  gamma: 0.2\n")  # fmt: skip
    config, origins = load_config(path)
    found = origins_in(describe(config, origins))
    assert (config.training["epochs"], config.training["gamma"]) == (5, 0.2)
    assert found["training.epochs"] == f"{path}:4"
    assert found["training.gamma"] == f"{path}:5"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "data: {root: 'a: b # c', classes: ['yes', '1', null_, 'é']}\nseed: 3\n",
        "data: {augmentation: null, val_split: null, root: [a, b]}\n",
        "data: {augmentation: {extra: [{name: GaussianBlur, p: 0.1}]}}\n",
        "training: {milestones: [1, 2], learning_rate: 1e-5, train: {epochs: 3}}\n",
        f"data: {{root: {'x' * 300}}}\n",
    ],
)
def test_the_description_is_the_config(load, write, text):
    config = load(text)
    described = describe(config, {})
    assert yaml.safe_load(described) == config.as_dict()
    assert load_config(write(described, "described.yaml"))[0] == config
    assert all("  # default" in line or line.endswith(":") for line in described.splitlines())


def test_settings_remember_lines(write):
    path = write("seed: 1\n\ndata:\n  root: x\n")
    settings = read_settings(path)
    assert settings.values == {"seed": 1, "data": {"root": "x"}}
    assert settings.origins[("seed",)] == f"{path}:1"
    assert settings.origins[("data", "root")] == f"{path}:4"


def test_a_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Config().seed = 3
