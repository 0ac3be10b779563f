"""Reading YAML that may be broken or malicious: whatever is wrong ends in one kind of error.

PyYAML's safe loader runs no code, but stumbles over some tags with exceptions of any kind, and
follows aliases that unfold to billions of values.
"""

from typing import Any

import yaml

# Values after all aliases are unfolded. A config has some hundred, a list of all classes of
# ImageNet 21,841; nine lines of nested aliases have billions.
MAX_VALUES = 200_000
# Python refuses to print numbers of more than 4,300 digits; no sensible number is longer.
_MAX_NUMBER_BITS = 1024


class BrokenYAMLError(ValueError):
    """A text cannot be read as YAML.

    Attributes:
        line: from 1; None where it is not known.
        reason: what is wrong, in one line.
    """

    def __init__(self, line: int | None, reason: str) -> None:
        super().__init__(reason if line is None else f"line {line}: {reason}")
        self.line, self.reason = line, reason


def parse_yaml(text: str) -> tuple[yaml.Node | None, Any]:
    """Read one YAML document.

    Returns:
        The tree of nodes, which know their lines, and the plain values; None and None of a text
        without a value.

    Raises:
        BrokenYAMLError: the text is no YAML, a tag does not fit its value, a number is beyond all
            reason, or aliases unfold to more than `MAX_VALUES` values or contain themselves.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            return None, None
        _count_values(node, {})
        # from nodes of its own, since constructing changes those that are merged
        return node, yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error)
        line = None if mark is None else mark.line + 1
        raise BrokenYAMLError(line, " ".join(reason.split())) from error
    except RecursionError as error:
        raise BrokenYAMLError(None, "values are nested too deeply") from error


class _Loader(yaml.SafeLoader):
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep=deep)
        except (yaml.YAMLError, RecursionError):
            raise
        # a tag that does not fit its value ends in an exception of any kind
        except Exception as error:
            kind = node.tag.rpartition(":")[2]
            raise _fault(
                node, f"{str(node.value)[:40]!r} is no value of the type {kind}"
            ) from error
        if isinstance(value, int) and value.bit_length() > _MAX_NUMBER_BITS:
            raise _fault(node, "the number has more than 300 digits")
        if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise _fault(node, f"{ascii(value)[:40]} has half of a character of two codes")
        return value


def _fault(node: yaml.Node, problem: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _count_values(node: yaml.Node, counts: dict[int, int | None]) -> int:
    """The number of values below a node with all aliases unfolded; None marks what is open."""
    if id(node) in counts:
        known = counts[id(node)]
        if known is None:
            raise _fault(node, "an alias stands within the value that it names")
        return known
    counts[id(node)] = None
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        children = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    total = 1 + sum(_count_values(child, counts) for child in children)
    if total > MAX_VALUES:
        raise _fault(node, f"there are more than {MAX_VALUES:,} values, aliases unfolded")
    counts[id(node)] = total
    return total
