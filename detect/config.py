"""Configs: YAML and `key.sub=value` in, one checked and resolved record out. Floor 4.

Every key is known or refused with the nearest name; what the user set wins or is an error. The keys
of the `detector`, `training` and `data.augmentation` sections are the arguments of what they build,
so that a config cannot say what the code does not know.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from detect.data import DATASETS, Augmentation, ClassNames
from detect.detectors import DETECTORS
from detect.errors import DetectError
from detect.registry import hint, nearest
from detect.settings import KeyPath, Settings, read_settings
from detect.training import EngineSettings, GradientSettings

# Arguments of a detector's constructor that do not come from its config section.
GIVEN_TO_DETECTORS = ("self", "backbone", "num_classes")

Model = TypeVar("Model", bound=BaseModel)
ExperimentModel = TypeVar("ExperimentModel", bound="Experiment")


class Section(BaseModel):
    """A part of a config; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def options_of(build: Callable[..., Any], *without: str) -> type[Section]:
    """A section whose keys, types and defaults are the arguments of `build`."""
    fields: dict[str, Any] = {
        name: (
            parameter.annotation,
            ... if parameter.default is parameter.empty else parameter.default,
        )
        for name, parameter in inspect.signature(build).parameters.items()
        if name not in without
    }
    return create_model(
        build.__qualname__.partition(".")[0] + "Options", __base__=Section, **fields
    )


# which joints are left and right is the data set's to say
AugmentationOptions = options_of(Augmentation.__init__, "self", "joint_swaps")


# Kinds whose data has classes of its own. `classes` is `voc` by default all the same, and stays so:
# a run is only continued with the same settings.
_NEVER_VOC = ("shapes", "figures", "coco_keypoints", "imagenet_localization", "folders")


class DataSection(Section):
    """Which images.

    `root` is a folder in VOC layout, or a list of them that are joined. A split is a name, or a
    list with one name (or null) for each root. `num_images` and `image_size` are of the built-in
    sets; `max_objects` of an image and the least and greatest of their `diameters`, as shares of
    the image's side, of the shapes. `cache` is a folder for what is expensive to compute again,
    such as proposals; only what is computed from the same content is taken from there.
    `image_cache` are the GiB of memory in which decoded training images are kept, so that an
    epoch does not decode them again; what is beyond it is decoded each time.
    """

    # kinds whose data cannot be used here
    refused_kinds: ClassVar[tuple[str, ...]] = ()

    kind: str = "voc"
    root: str | list[str] = "data/shapes"
    train_split: str | list[str | None] = "train"
    val_split: str | list[str | None] | None = "val"
    test_split: str | list[str | None] | None = "test"
    classes: Literal["voc", "auto"] | list[str] = "voc"
    on_error: Literal["stop", "skip"] = "stop"
    include_difficult: bool = False
    augmentation: dict[str, Any] | None = Field(default_factory=dict)
    num_workers: int = Field(default=1, ge=0)
    num_images: int = Field(default=1200, ge=10)
    image_size: int = Field(default=128, ge=32)
    max_objects: int = Field(default=6, ge=1)
    diameters: tuple[float, float] = (0.15, 0.58)
    cache: str = "cache"
    image_cache: float = Field(default=0.0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _take_own_classes(cls, section: Any) -> Any:
        # other formats say which classes there are, and rarely those of VOC
        if isinstance(section, dict) and section.get("kind", "voc") not in ("voc", *_NEVER_VOC):
            return {"classes": "auto", **section}
        return section

    @property
    def wanted_classes(self) -> ClassNames:
        """`classes`, or `auto` where the default cannot be meant."""
        return "auto" if self.classes == "voc" and self.kind in _NEVER_VOC else self.classes


class DetectionDataSection(DataSection):
    """Which images a detector learns from.

    `kind` is a name in `detect.data.DATASETS`; what else its reader takes are keys of this section.
    `voc`, `coco` and `yolo` are folders in these layouts (docs/data.md), `auto` detects which;
    of all but `voc`, `classes` is `auto` unless it is set. `shapes` is the built-in set. With
    joints: `figures`, the built-in set of stick figures, and `coco_keypoints`, where `root` has
    `images/` and `annotations/person_keypoints_<split>.json`; `person_crops` makes an image of
    each person, with this share of its width and height around it, null leaves images whole.
    `imagenet_localization` is ILSVRC's folder with `Annotations/CLS-LOC` and `Data/CLS-LOC`.
    """

    refused_kinds = ("folders",)

    person_crops: float | None = Field(default=None, ge=0)


class ClassificationDataSection(DataSection):
    """Which images a classifier learns from.

    Of `voc` and `shapes`, the objects are cut out, one image each; `folders` has a folder for
    each class in `root/<split>`, as ImageNet is unpacked.

    `input_size` is the side of the classifier's input, by default that of the backbone's design.
    `context` is how much of its width and height a box is widened on each side before it is cut
    out; `background_per_image` the number of crops without an object, of a class of their own.
    """

    input_size: int | None = Field(default=None, ge=1)
    context: float = Field(default=0.1, ge=0)
    background_per_image: int = Field(default=0, ge=0)


class BackboneSection(Section):
    """Which network the detector grows on.

    `image_size` is taken as the size that it was designed for, the window of a sliding window for
    example; networks with fully connected layers have their own and no other.
    """

    name: str = "tiny"
    weights: str = "none"
    freeze: list[str] = []
    image_size: int | None = Field(default=None, ge=1)


# how a run computes and what it writes: the same for every detector
EngineSection = options_of(EngineSettings)


class EvaluationSection(Section):
    """How a detector is judged."""

    iou_threshold: float = Field(default=0.5, gt=0, le=1)
    batch_size: int = Field(default=16, ge=1)


class Experiment(Section):
    """What the configs of all experiments have. Of `training`, every key is present."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    data: DataSection = DataSection()
    backbone: BackboneSection = BackboneSection()

    if TYPE_CHECKING:  # declared by those who inherit, so that they stand last
        training: dict[str, Any]
        engine: dict[str, Any]
        evaluation: EvaluationSection

    @field_validator(
        "data",
        "backbone",
        "detector",
        "training",
        "engine",
        "evaluation",
        mode="before",
        check_fields=False,
    )
    @classmethod
    def _fill_empty(cls, section: Any) -> Any:
        # YAML reads a section whose keys are all commented out as null
        return {} if section is None else section

    @property
    def phase_names(self) -> tuple[str, ...]:
        """The phases of its training, each of which may have a subsection."""
        raise NotImplementedError

    def settings_of(self, phase: str) -> GradientSettings:
        """The settings of a training phase: the common ones, and the phase's own over them."""
        common = {
            field.name: self.training[field.name] for field in dataclasses.fields(GradientSettings)
        }
        options = options_of(GradientSettings)
        merged = {**common, **self.training.get(phase, {})}
        return GradientSettings(**dict(options.model_validate(merged)))

    @property
    def engine_settings(self) -> EngineSettings:
        """How the run computes and what it writes."""
        return EngineSettings(**dict(EngineSection.model_validate(self.engine)))

    def as_dict(self) -> dict[str, Any]:
        """Plain data, from which `resolve` makes the same config again."""
        return self.model_dump(mode="json")


class Config(Experiment):
    """The checked config of a detector. Of `detector`, every key is present.

    `initial_weights` is a run or checkpoint whose parameters a training starts from, where they
    fit: those of a classifier or of another detector on the same backbone.
    """

    data: DetectionDataSection = DetectionDataSection()
    detector: dict[str, Any] = Field(default_factory=lambda: {"name": "yolo"})
    training: dict[str, Any] = Field(default_factory=dict)
    engine: dict[str, Any] = Field(default_factory=dict)
    evaluation: EvaluationSection = EvaluationSection()
    initial_weights: str = "none"

    @property
    def phase_names(self) -> tuple[str, ...]:
        """Those of the detector."""
        return DETECTORS[self.detector["name"]].phase_names

    @property
    def detector_options(self) -> dict[str, Any]:
        """The keyword arguments of the detector's constructor."""
        options = options_of(DETECTORS[self.detector["name"]], *GIVEN_TO_DETECTORS)
        own = {key: value for key, value in self.detector.items() if key != "name"}
        return dict(options.model_validate(own))

    def without_weights(self) -> "Config":
        """The same config with an untrained backbone: nothing is read or downloaded for it."""
        backbone = self.backbone.model_copy(update={"weights": "none"})
        return self.model_copy(update={"backbone": backbone})


class PretrainConfig(Experiment):
    """The checked config of a classifier."""

    data: ClassificationDataSection = ClassificationDataSection()
    training: dict[str, Any] = Field(default_factory=dict)
    engine: dict[str, Any] = Field(default_factory=dict)
    evaluation: EvaluationSection = EvaluationSection()

    @property
    def phase_names(self) -> tuple[str, ...]:
        """There is one."""
        return ("classify",)


def load_config(
    given: str | Path, overrides: Sequence[str] = ()
) -> tuple[Config, dict[KeyPath, str]]:
    """Read the config of a detector; see `load_experiment`."""
    return load_experiment(given, overrides, Config)


def load_experiment(
    given: str | Path, overrides: Sequence[str], model: type[ExperimentModel]
) -> tuple[ExperimentModel, dict[KeyPath, str]]:
    """Read a config file, apply `key.sub=value` overrides, and check the result.

    Args:
        given: the path of a file, or the name of a config that comes with the toolkit.
        overrides: take precedence over it.
        model: what it is a config of.

    Returns:
        The config, and the origin of each value that is no default.

    Raises:
        DetectError: with every fault that was found, each with its file and line.
    """
    settings = read_settings(given)
    for override in overrides:
        settings.override(override)
    return resolve_experiment(settings, str(given), model), settings.origins


def resolve(settings: Settings, source: str) -> Config:
    """Check the settings of a detector; see `resolve_experiment`."""
    return resolve_experiment(settings, source, Config)


def resolve_experiment(
    settings: Settings, source: str, model: type[ExperimentModel]
) -> ExperimentModel:
    """Check settings and fill in the defaults.

    Args:
        settings: what the user set.
        source: named where a fault has no line of its own.
        model: what they are settings of.

    Raises:
        DetectError: with every fault.
    """
    faults: list[str] = []
    checker = _Checker(settings.origins, source, faults)
    config = checker.check(_with_own_keys(model, settings.values, checker), settings.values, ())
    if config is None:
        raise DetectError("\n".join(faults))
    if config.data.augmentation is not None:
        augmentation = checker.check(
            AugmentationOptions, config.data.augmentation, ("data", "augmentation")
        )
        if augmentation is not None:
            plain = augmentation.model_dump(mode="json")
            data = config.data.model_copy(update={"augmentation": plain})
            config = config.model_copy(update={"data": data})
    phases: tuple[str, ...] = ()
    if not isinstance(config, Config):
        phases = config.phase_names
    else:
        section = _check_detector(checker, config.detector)
        config = config.model_copy(update={"detector": section})
        if section["name"] in DETECTORS:
            phases = DETECTORS[section["name"]].phase_names
    training = _check_training(checker, config.training, phases)
    engine = _check_engine(checker, config.engine)
    config = config.model_copy(update={"training": training, "engine": engine})
    if faults:
        raise DetectError("\n".join(faults))
    return config


def _with_own_keys(
    model: type[ExperimentModel], values: Mapping[str, Any], checker: "_Checker"
) -> type[ExperimentModel]:
    """The model with the keys that the reader of `data.kind` adds to those of every data section.

    A kind that is unknown, or whose data cannot be used here, is a fault.
    """
    given = values.get("data")
    kind = given.get("kind", "voc") if isinstance(given, dict) else "voc"
    section = model.model_fields["data"].annotation
    assert isinstance(section, type)
    assert issubclass(section, DataSection)
    known = [name for name in DATASETS if name not in section.refused_kinds]
    if kind not in known:
        checker.add(("data", "kind"), f"unknown kind {kind!r}; {hint(str(kind), sorted(known))}")
        return model
    request, *_ = inspect.signature(DATASETS[kind]).parameters
    own = options_of(DATASETS[kind], request, *DetectionDataSection.model_fields)
    if not own.model_fields:
        return model
    fields: dict[str, Any] = {
        name: (field.annotation, field) for name, field in own.model_fields.items()
    }
    extended = create_model(section.__name__, __base__=section, **fields)
    return create_model(model.__name__, __base__=model, data=(extended, extended()))


def describe(config: Experiment, origins: Mapping[KeyPath, str]) -> str:
    """The resolved config as YAML, each line with the origin of its value as a comment."""
    lines: list[tuple[str, str]] = []
    _describe(config.as_dict(), (), origins, lines)
    width = min(max(len(line) for line, _ in lines), 60)
    return "\n".join(f"{line:<{width}}  # {origin}" if origin else line for line, origin in lines)


class _Checker:
    # validates sections, turning pydantic's complaints into lines with an origin and a remedy
    def __init__(self, origins: Mapping[KeyPath, str], source: str, faults: list[str]) -> None:
        self.origins, self.source, self.faults = origins, source, faults

    def check(self, model: type[Model], values: Any, path: KeyPath) -> Model | None:
        try:
            return model.model_validate({} if values is None else values)
        except ValidationError as error:
            for location, faults in _by_location(model, error.errors()).items():
                self.add((*path, *location), self._explain(model, location, faults))
            return None

    def add(self, path: KeyPath, complaint: str) -> None:
        places = [path[:n] for n in range(len(path), 0, -1)]
        # an unknown section of an override stands only at the keys below it
        places += [place for place in self.origins if place[: len(path)] == path]
        origin = next((self.origins[p] for p in places if p in self.origins), self.source)
        line = f"{origin}: {'.'.join(path)}: {complaint}"
        if line not in self.faults:
            self.faults.append(line)

    def _explain(self, model: type[BaseModel], location: KeyPath, faults: list[Any]) -> str:
        first, *others = faults
        if first["type"] != "extra_forbidden":
            complaints = [str(first["msg"])]
            # where several types are allowed, there is a complaint for each
            complaints += [str(other["msg"]).removeprefix("Input should be ") for other in others]
            lowered = " or ".join(text[0].lower() + text[1:] for text in complaints)
            return f"{lowered}, found {first['input']!r:.200}"
        for key in location[:-1]:
            inner = model.model_fields[key].annotation
            assert isinstance(inner, type)
            assert issubclass(inner, BaseModel)
            model = inner
        return unknown_key(location[-1], model.model_fields)


def _by_location(model: type[BaseModel], faults: Sequence[Any]) -> dict[KeyPath, list[Any]]:
    """The faults of each key, or element of its list.

    Where a key allows several types, pydantic has a fault for each, with the type in its location:
    `data.root.list[str].1`. Of these, the ones that lead furthest into the value count.
    """
    by_key: dict[KeyPath, list[Any]] = {}
    for fault in faults:
        by_key.setdefault(_key_of(model, fault["loc"]), []).append(fault)
    by_location: dict[KeyPath, list[Any]] = {}
    for key, own in by_key.items():
        furthest = max(len(fault["loc"]) for fault in own)
        for fault in own:
            if len(fault["loc"]) == furthest:
                elements = [str(part) for part in fault["loc"][len(key) :] if isinstance(part, int)]
                by_location.setdefault((*key, *elements), []).append(fault)
    return by_location


def _key_of(model: type[BaseModel], location: tuple[str | int, ...]) -> KeyPath:
    # without the parts within the value of the key
    section: Any = model
    for depth, part in enumerate(location, start=1):
        field = section.model_fields.get(part)
        section = None if field is None else field.annotation
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            return tuple(str(key) for key in location[:depth])
    return tuple(str(key) for key in location)


def unknown_key(key: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    """What to say of a key that does not exist: the nearest, or where else it belongs, or all."""
    homes = (
        []
        if nearest(key, known)
        else [
            f"{name}.{key}"
            for name, field in Config.model_fields.items()
            if isinstance(field.annotation, type)
            and issubclass(field.annotation, BaseModel)
            and key in field.annotation.model_fields
        ]
    )
    for name, settings in (("training", GradientSettings), ("engine", EngineSettings)):
        if key in {field.name for field in dataclasses.fields(settings)}:
            homes.append(f"{name}.{key}")
    if homes:
        return f"unknown key; did you mean {' or '.join(homes)}?"
    return f"unknown key; {hint(key, known)}"


def _check_detector(checker: _Checker, section: dict[str, Any]) -> dict[str, Any]:
    name = section.get("name", "yolo")
    try:
        detector = DETECTORS[str(name)]
    except DetectError as error:
        checker.add(("detector", "name"), str(error))
        return {"name": str(name)}
    own = {key: value for key, value in section.items() if key != "name"}
    options = checker.check(options_of(detector, *GIVEN_TO_DETECTORS), own, ("detector",))
    return {"name": name, **({} if options is None else options.model_dump(mode="json"))}


def _check_training(
    checker: _Checker, section: dict[str, Any], phases: Sequence[str]
) -> dict[str, Any]:
    options = options_of(GradientSettings)
    subsections: dict[str, Any] = {phase: (options, options()) for phase in phases}
    values = {
        key: {} if key in phases and value is None else value for key, value in section.items()
    }
    model = create_model("TrainingOptions", __base__=options, **subsections)
    checked = checker.check(model, values, ("training",))
    if checked is None:
        return section
    resolved = checked.model_dump(mode="json", exclude=set(phases))
    for phase in phases:
        own = getattr(checked, phase).model_dump(exclude_unset=True)
        try:
            GradientSettings(**{**checked.model_dump(exclude=set(phases)), **own})
        except DetectError as error:
            key, _, complaint = str(error).removeprefix("training.").partition(": ")
            checker.add(("training", phase, key) if key in own else ("training", key), complaint)
        if own:
            resolved[phase] = getattr(checked, phase).model_dump(mode="json", exclude_unset=True)
    return resolved


def _check_engine(checker: _Checker, section: dict[str, Any]) -> dict[str, Any]:
    checked = checker.check(EngineSection, section, ("engine",))
    if checked is None:
        return section
    try:
        EngineSettings(**dict(checked))
    except DetectError as error:
        key, _, complaint = str(error).removeprefix("engine.").partition(": ")
        checker.add(("engine", key), complaint)
    return checked.model_dump(mode="json")


def _describe(
    values: Mapping[str, Any],
    path: KeyPath,
    origins: Mapping[KeyPath, str],
    lines: list[tuple[str, str]],
) -> None:
    for key, value in values.items():
        here = (*path, key)
        indent = "  " * len(path)
        if isinstance(value, dict) and value:
            lines.append((f"{indent}{key}:", ""))
            _describe(value, here, origins, lines)
            continue
        text = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n")
        lines.append((f"{indent}{key}: {text.strip()}", origins.get(here, "default")))
