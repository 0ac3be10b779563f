"""Names of classes that look like one class written in two ways."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations

from detect.data.annotated import AnnotatedSet
from detect.data.checking.finding import Finding, warning

# A slip is rare: a name that comes more often than this, relative to the one that it resembles, is
# a class of its own, as house is beside horse.
MAX_SHARE_OF_SLIPS = 0.1
# Shorter words are one letter apart by chance: cat, car, bat.
MIN_LETTERS_OF_SLIP = 5
_SEPARATORS = str.maketrans("", "", " \t\n-_.")


def check_class_names(annotated: AnnotatedSet) -> Iterator[Finding]:
    """Pairs of names that differ in case, separators, plural or one letter only."""
    counts = Counter(item.name for image in annotated.images for item in image.objects)
    known = [fault.value for fault in annotated.faults if fault.rule == "similar-classes"]
    for first, second in _candidates(annotated.class_names):
        difference = _difference(first, second, counts)
        rare, frequent = sorted((first, second), key=lambda name: (counts[name], name))
        if difference is None or any(repr(rare) in v and repr(frequent) in v for v in known):
            continue
        place = next(
            ((p, item) for p in annotated.images for item in p.objects if item.name == rare), None
        )
        yield warning(
            annotated.root if place is None else place[0].annotation_path,
            None if place is None else place[1].title,
            "similar-classes",
            f"{rare!r} (count {counts[rare]}) and {frequent!r} (count {counts[frequent]}) are "
            f"different classes; their names differ {difference}",
            "write the name alike if one is meant",
            images=() if place is None else (place[0].image_path,),
            boxes=() if place is None else (place[1].box,),
        )


def _candidates(names: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs that agree after leaving out at most one letter of each, and some others.

    Comparing the forms with a letter left out, instead of all pairs, keeps a thousand classes
    cheap.
    """
    by_form: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        whole = _bare(name)
        forms = {whole, _singular(whole)}
        if len(whole) >= MIN_LETTERS_OF_SLIP:
            forms |= {whole[:place] + whole[place + 1 :] for place in range(len(whole))}
        for form in forms:
            by_form.setdefault(form, []).append(name)
    pairs = {
        pair: None for alike in by_form.values() for pair in combinations(alike, 2)
    }  # in the order of the names, each once
    return list(pairs)


def _difference(first: str, second: str, counts: Counter[str]) -> str | None:
    """In what the names differ, in words; None if they are different words."""
    if first.lower() == second.lower():
        return "in upper and lower case"
    one, other = _bare(first), _bare(second)
    if one == other:
        return "in blanks, hyphens and the like"
    if _singular(one) == _singular(other):
        return "in singular and plural"
    fewer, more = sorted((counts[first], counts[second]))
    is_slip = min(len(one), len(other)) >= MIN_LETTERS_OF_SLIP and fewer <= (
        MAX_SHARE_OF_SLIPS * more
    )
    if is_slip and _is_one_letter_apart(one, other):
        return "in one letter"
    return None


def _bare(name: str) -> str:
    return name.lower().translate(_SEPARATORS)


def _singular(word: str) -> str:
    """The word without an English plural's ending; one for both numbers is enough."""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ses", "xes", "zes", "ches", "shes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith("ss") and len(word) > 3:
        return word[:-1]
    return word


def _is_one_letter_apart(one: str, other: str) -> bool:
    """Whether inserting, deleting, replacing or exchanging letters once makes one the other.

    Digits count names, as in `class1` and `class2`: they are no slip.
    """
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    end = 0
    while end < min(len(one), len(other)) - start and one[-1 - end] == other[-1 - end]:
        end += 1
    a, b = one[start : len(one) - end], other[start : len(other) - end]
    if any(letter.isdigit() for letter in a + b):
        return False
    return max(len(a), len(b)) == 1 or (len(a) == len(b) == 2 and a == b[::-1])
