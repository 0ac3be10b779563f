"""The options of a config's `detector` section: the ranges of numbers, and groups of options.

They stand in the signatures of the detectors' constructors, so that a config is checked against
them before anything is read, with file and line (`detect.config` makes a section of a signature).
`in_ranges` makes a constructor that is called from Python refuse the same, and lets it state
options that belong together as one argument, a frozen dataclass.
"""

import inspect
import math
from collections.abc import Callable, Sized
from dataclasses import fields, is_dataclass, replace
from functools import wraps
from inspect import Parameter
from typing import Annotated, Any, get_type_hints

from pydantic import AfterValidator, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from detect.backbones import Backbone
from detect.errors import DetectError


def _expected(what: str, is_legal: Callable[[Any], bool]) -> AfterValidator:
    def check(value: Any) -> Any:
        if not is_legal(value):
            raise PydanticCustomError("range", "expected {what}", {"what": what})
        return value

    return AfterValidator(check)


def _is_filled(values: Sized) -> bool:
    return len(values) > 0


Count = Annotated[int, _expected("1 or more", lambda value: value >= 1)]
CountOrZero = Annotated[int, _expected("0 or more", lambda value: value >= 0)]
Share = Annotated[float, _expected("0 to 1", lambda value: 0 <= value <= 1)]
Weight = Annotated[float, _expected("0 or more", lambda value: 0 <= value < math.inf)]
Positive = Annotated[float, _expected("more than 0", lambda value: 0 < value < math.inf)]
Finite = Annotated[float, _expected("a finite number", math.isfinite)]
Counts = Annotated[tuple[Count, ...], _expected("at least one number", _is_filled)]
Positives = Annotated[tuple[Positive, ...], _expected("at least one number", _is_filled)]
Rising = Annotated[tuple[Share, Share], _expected("two rising numbers", lambda p: p[0] < p[1])]


def check_input_size(backbone: Backbone, *sides: int) -> None:
    """Refuse an input of which the trunk leaves nothing."""
    least = backbone.least_size()
    if min(sides) < least:
        raise DetectError(
            f"detector.input_size: expected at least {least} pixels, since the backbone leaves "
            f"nothing of a smaller image, found {min(sides)}"
        )


def in_ranges(build: Callable[..., None]) -> Callable[..., None]:
    """Let a detector's constructor take each option by its own name, and refuse bad values.

    An argument whose default is a dataclass is a group of options. Each of its fields becomes an
    argument of the constructor, with the field's type, its range and, by default, its value in that
    group: these are the keys of the config. From Python, a group may also be given as a whole:
    `FasterRCNN(backbone, 3, rpn=RPNSettings(anchor_ratios=(1.0,)), iou_threshold=0.4)`.

    Raises:
        DetectError: names the argument as a config's key, what was expected and what was found.
    """
    arguments = list(inspect.signature(build).parameters.values())
    groups = {item.name: item.default for item in arguments if is_dataclass(item.default)}
    flat = [option for item in arguments for option in _flattened(item)]
    owners = {field.name: name for name, group in groups.items() for field in fields(group)}
    ranges = {
        option.name: TypeAdapter(option.annotation).validate_python
        for option in flat
        if option.kind is Parameter.KEYWORD_ONLY
    }

    @wraps(build)
    def checked(*args: Any, **kwargs: Any) -> None:
        given = {name: kwargs.pop(name) for name in [*kwargs] if name in groups}
        single = {name: kwargs.pop(name) for name in [*kwargs] if name in owners}
        values = [(key, getattr(given[owners[key]], key)) for key in owners if owners[key] in given]
        for name, value in [*values, *single.items(), *kwargs.items()]:
            if name in ranges:  # or the constructor itself will say that it does not know it
                _check_range(name, value, ranges[name])
        for name, default in groups.items():
            changed = {key: value for key, value in single.items() if owners[key] == name}
            kwargs[name] = replace(given.get(name, default), **changed)
        build(*args, **kwargs)

    checked.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    return checked


def _flattened(argument: Parameter) -> list[Parameter]:
    group = argument.default
    if not is_dataclass(group):
        return [argument]
    types = get_type_hints(type(group), include_extras=True)
    return [
        Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=getattr(group, field.name),
            annotation=types[field.name],
        )
        for field in fields(group)
    ]


def _check_range(name: str, value: Any, validate: Callable[[Any], Any]) -> None:
    try:
        validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"] if isinstance(part, int)]
        raise DetectError(
            f"detector.{'.'.join([name, *place])}: {first['msg']}, found {first['input']!r}"
        ) from None
