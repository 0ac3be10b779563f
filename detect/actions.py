"""What records do with the help of higher floors, which enter it here: imports point down. Floor 0.

`Detections.plot` draws and `Detections.save` writes; the record is the lowest of all, drawing and
writing stand on it. detect/__init__.py, which is always loaded first, enters both.
"""

from collections.abc import Callable
from typing import Any

ACTIONS: dict[str, Callable[..., Any]] = {}
