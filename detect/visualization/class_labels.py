"""Names of classes as labels of a figure, and how large a figure of many classes is."""

from collections.abc import Sequence

MAX_LENGTH = 22


def class_labels(names: Sequence[str], max_length: int = MAX_LENGTH) -> list[str]:
    """Names that matplotlib shows as they are, long ones with an ellipsis at the end.

    A dollar sign would begin a formula, and what begins with an underscore is left out of legends.
    """
    return [_label(name, max_length) for name in names]


def _label(name: str, max_length: int) -> str:
    text = " ".join(name.split())
    if len(text) > max_length:
        text = text[: max_length - 1].rstrip() + "…"
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
