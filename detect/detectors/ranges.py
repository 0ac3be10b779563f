"""Ranges of the numbers in a config's `detector` section.

They stand in the signatures of the detectors' constructors, so that a config is checked against
them before anything is read, with file and line (`detect.config` makes a section of a signature).
`in_ranges` makes a constructor that is called from Python refuse the same.
"""

import inspect
import math
from collections.abc import Callable, Sized
from functools import wraps
from typing import Annotated, Any, ParamSpec

from pydantic import AfterValidator, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from detect.backbones import Backbone
from detect.errors import DetectError

Arguments = ParamSpec("Arguments")


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


def in_ranges(build: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Let a detector's constructor refuse arguments outside the ranges that its signature states.

    Raises:
        DetectError: names the argument as a config's key, what was expected and what was found.
    """
    signature = inspect.signature(build)
    ranges = {
        name: TypeAdapter(parameter.annotation)
        for name, parameter in signature.parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }

    @wraps(build)
    def checked(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        for name, value in kwargs.items():
            if name not in ranges:
                continue  # the constructor itself will say that it does not know it
            try:
                ranges[name].validate_python(value)
            except ValidationError as error:
                first = error.errors()[0]
                place = [str(part) for part in first["loc"] if isinstance(part, int)]
                raise DetectError(
                    f"detector.{'.'.join([name, *place])}: {first['msg']}, found {first['input']!r}"
                ) from None
        build(*args, **kwargs)

    return checked
