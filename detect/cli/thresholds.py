"""IoU thresholds as the command line has them: `0.5`, or a range `0.5:0.95:0.05`."""

from collections.abc import Sequence

from detect.errors import DetectError

# More thresholds than this are a mistyped step.
_MAX_THRESHOLDS = 1000
_DECIMALS = 10


def parse_thresholds(texts: Sequence[str]) -> tuple[float, ...]:
    """The thresholds that the values of `--iou` mean, each once, in their order.

    >>> parse_thresholds(["0.3", "0.5:0.6:0.05"])
    (0.3, 0.5, 0.55, 0.6)

    Raises:
        DetectError: a value is no number or range, or a threshold is out of its range.
    """
    thresholds = [threshold for text in texts for threshold in _thresholds_of(text)]
    return tuple(dict.fromkeys(thresholds))


def _thresholds_of(text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        thresholds = numbers
    elif len(numbers) == 3:
        begin, end, step = numbers
        if not step > 0 or not begin <= end or not (end - begin) / step < _MAX_THRESHOLDS:
            raise DetectError(
                f"--iou: expected a range BEGIN:END:STEP that rises by a STEP above 0, such as "
                f"0.5:0.95:0.05, found {text!r}"
            )
        # rounded, so that 0.5 + 0.05 + … meets the decimals that are meant, the end included
        count = int(round((end - begin) / step, 6)) + 1
        thresholds = [round(begin + row * step, _DECIMALS) for row in range(count)]
    else:
        raise DetectError(
            f"--iou: expected a number, such as 0.5, or a range BEGIN:END:STEP, such as "
            f"0.5:0.95:0.05, found {text!r}"
        )
    for threshold in thresholds:
        if not 0 < threshold <= 1:
            raise DetectError(f"--iou: expected more than 0 and at most 1, found {threshold}")
    return thresholds
