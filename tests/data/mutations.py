"""Files broken in the ways in which files break, and in those that somebody would think of."""

import json
import re

import numpy as np

_TAG = re.compile(rb"<[^<>]*>")
_NUMBER = re.compile(rb"-?\d+(\.\d+)?")
_NUMBERS = (b"0", b"-1", b"1e308", b"-1e308", b"1e999", b"nan", b"inf", b"9" * 400, b"0x10",
            b"1_000", b"\xd9\xa3", b"1.", b"--1", b"")  # fmt: skip
_ENCODINGS = ("utf-8", "utf-16", "utf-16-be", "utf-32", "latin-1", "cp037", "rot13", "no-such", "")
_ENTITIES = (
    b'<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">'
    b'<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;">]>',
    b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
    b'<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd">',
    b"<!DOCTYPE annotation>",
)


def mutate(data, rng, kinds):
    """The bytes after one to three mutations of the given kinds."""
    for _ in range(int(rng.integers(1, 4))):
        data = kinds[int(rng.integers(len(kinds)))](data, rng)
    return data


def flip_bytes(data, rng):
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        if changed:
            changed[int(rng.integers(len(changed)))] = int(rng.integers(256))
    return bytes(changed)


def truncate(data, rng):
    return data[: int(rng.integers(len(data) + 1))]


def insert(data, rng):
    place = int(rng.integers(len(data) + 1))
    return data[:place] + rng.bytes(int(rng.integers(1, 40))) + data[place:]


def cut_out(data, rng):
    start, stop = sorted(int(place) for place in rng.integers(len(data) + 1, size=2))
    return data[:start] + data[stop:]


def repeat_part(data, rng):
    start = int(rng.integers(len(data) + 1))
    part = data[start : start + int(rng.integers(1, 200))]
    return data[:start] + part * int(rng.integers(2, 6)) + data[start:]


# ---- XML --------------------------------------------------------------------------------------


def _one_of(pattern, data, rng):
    matches = list(pattern.finditer(data))
    return matches[int(rng.integers(len(matches)))] if matches else None


def repeat_tag(data, rng):
    match = _one_of(_TAG, data, rng)
    return data if match is None else data[: match.end()] + match.group() + data[match.end() :]


def remove_tag(data, rng):
    match = _one_of(_TAG, data, rng)
    return data if match is None else data[: match.start()] + data[match.end() :]


def repeat_element(data, rng):
    tag = _one_of(re.compile(rb"<(\w+)>"), data, rng)
    if tag is None:
        return data
    end = data.find(b"</" + tag[1] + b">", tag.end())
    end = len(data) if end < 0 else end + len(tag[1]) + 3
    return data[:end] + data[tag.start() : end] * int(rng.integers(1, 4)) + data[end:]


def change_number(data, rng):
    match = _one_of(_NUMBER, data, rng)
    if match is None:
        return data
    number = _NUMBERS[int(rng.integers(len(_NUMBERS)))]
    return data[: match.start()] + number + data[match.end() :]


def nest_deeply(data, rng):
    match = _one_of(_TAG, data, rng)
    depth = int(rng.integers(1, 3000))
    nested = b"<part>" * depth + b"</part>" * depth
    return nested if match is None else data[: match.end()] + nested + data[match.end() :]


def change_encoding(data, rng):
    declared = _ENCODINGS[int(rng.integers(len(_ENCODINGS)))]
    body = re.sub(rb"^<\?xml[^>]*\?>", b"", data)
    text = f'<?xml version="1.0" encoding="{declared}"?>' + body.decode("latin-1")
    stored = _ENCODINGS[int(rng.integers(6))]
    return text.encode(stored, "replace")


def add_entities(data, rng):
    entity = _ENTITIES[int(rng.integers(len(_ENTITIES)))]
    body = re.sub(rb"^<\?xml[^>]*\?>", b"", data)
    return entity + re.sub(rb"<name>[^<]*", rb"<name>&d;&x;", body, count=1)


ANY = (flip_bytes, truncate, insert, cut_out, repeat_part)
XML = (*ANY, repeat_tag, remove_tag, repeat_element, change_number, nest_deeply, change_encoding,
       add_entities)  # fmt: skip


# ---- images ---------------------------------------------------------------------------------


def change_header(data, rng):
    """A few bytes of the first hundreds, where sizes, tables and lengths stand."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if changed:
            changed[int(rng.integers(min(len(changed), 700)))] = int(rng.integers(256))
    return bytes(changed)


def claim_size(data, rng):
    """Another height and width in a JPEG's frame header (ITU-T T.81, B.2.2)."""
    frame = re.search(rb"\xff[\xc0-\xc2]", data)
    if frame is None or frame.end() + 7 > len(data):
        return data
    sides = np.array(rng.choice([0, 1, 7, 300, 1000, 50000, 65535], 2), dtype=">u2")
    return data[: frame.end() + 3] + sides.tobytes() + data[frame.end() + 7 :]


def claim_length(data, rng):
    """Another length of one of a JPEG's segments."""
    marker = _one_of(re.compile(rb"\xff[\xc0-\xfe]"), data, rng)
    if marker is None:
        return data
    return data[: marker.end()] + rng.bytes(2) + data[marker.end() + 2 :]


JPEG = (flip_bytes, truncate, cut_out, change_header, claim_size, claim_length)


# ---- JSON -------------------------------------------------------------------------------------

_JSON_VALUES = (None, True, -1, 0, 1e308, 10**400, 0.5, float("nan"), "", "\0", "../x", "a" * 5000,
                "\ud800", [], {}, [[]], [1, 2], {"a": {"b": 1}}, "/etc/passwd", "1")  # fmt: skip


def change_json(data, rng):
    """Another value of any kind at one place of a sound JSON document."""
    try:
        content = json.loads(data)
    except ValueError:
        return data
    here = content
    while isinstance(here, dict | list) and here:
        keys = list(here) if isinstance(here, dict) else range(len(here))
        key = keys[int(rng.integers(len(keys)))]
        if not isinstance(here[key], dict | list) or not here[key] or rng.random() < 0.15:
            value = _JSON_VALUES[int(rng.integers(len(_JSON_VALUES)))]
            if isinstance(here, dict) and rng.random() < 0.1:
                del here[key]
            else:
                here[key] = value
            break
        here = here[key]
    return json.dumps(content).encode()


JSON = (change_json, change_json, change_json, change_json, flip_bytes)

# ---- YAML -------------------------------------------------------------------------------------

_VALUES = (b"null", b"[]", b"{}", b"-1", b"1e400", b".nan", b".inf", b"true", b"'", b"[1, [2",
           b"!!python/object:os.system x", b"&a [*a]", b"*b", b"2024-99-99", b"0o9", b"9" * 5000,
           b"? [1]", b"!!binary x", b"!!int x", b"!!timestamp 1", b"<<: 3", b"12:99:99", b"\t",
           b"{a: 1, a: 2}", b"[" * 300, b"- " * 900, b"!!set {a}", b"\xff", b"~: ~")  # fmt: skip
_VALUE = re.compile(rb"(?<=: )[^\n#]+")


def change_value(data, rng):
    match = _one_of(_VALUE, data, rng)
    value = _VALUES[int(rng.integers(len(_VALUES)))]
    return data + value if match is None else data[: match.start()] + value + data[match.end() :]


def swap_lines(data, rng):
    lines = data.split(b"\n")
    first, second = rng.integers(len(lines), size=2)
    lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


def indent_line(data, rng):
    lines = data.split(b"\n")
    place = int(rng.integers(len(lines)))
    lines[place] = b" " * int(rng.integers(5)) + lines[place].lstrip()
    return b"\n".join(lines)


def repeat_line(data, rng):
    lines = data.split(b"\n")
    place = int(rng.integers(len(lines)))
    return b"\n".join([*lines[:place], lines[place], *lines[place:]])


def laughs(kind, levels=9):
    """YAML whose aliases unfold to four billion values (the billion laughs)."""
    opening, closing = ("[", "]") if kind == "list" else ("{", "}")

    def row(names):
        keys = [f"{'' if kind == 'list' else f'k{n}: '}{name}" for n, name in enumerate(names)]
        return f"{opening}{', '.join(keys)}{closing}"

    lines = [f"a0: &a0 {row(['x'] * 9)}"]
    lines += [f"a{n}: &a{n} {row([f'*a{n - 1}'] * 9)}" for n in range(1, levels)]
    return "\n".join(lines)


def add_laughs(data, rng):
    return data + b"\n" + laughs("list" if rng.integers(2) else "map").encode()


YAML = (*ANY, change_value, change_value, add_laughs, swap_lines, indent_line, repeat_line)
