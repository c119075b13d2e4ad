"""Inputs that are nearly right: JSON and bytes, changed a little in the ways that break programs.

Everything comes from the `random.Random` that is passed in, so a seed repeats an input exactly.
`write_json` writes what `json` would refuse to: duplicate keys (`Pairs`) and raw text (`Raw`).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["ODD_TEXTS", "Pairs", "Raw", "mangle_bytes", "mangle_json", "odd_value", "write_json"]


class Raw(str):
    """JSON text that is written as it is, right or wrong."""

    __slots__ = ()


class Pairs(list[tuple[str, Any]]):
    """An object as a list of pairs, so that a key may come twice."""


ODD_TEXTS: Sequence[str] = (
    "",
    "\0",
    "a\0b",
    "\ufeff",
    "\u202egnirts",
    "é" * 40,
    "🫐" * 16,
    "x" * 1025,
    "$integer",
    "$",
    "_id",
    "_creationTime",
    "__proto__",
    "__class__",
    "ctx",
    "self",
    "value",
    "../../../etc/passwd",
    "a:b:c",
    "a/b:c",
    "a.js:b",
    ":",
    "/",
    "odds:hidden",
    "_system/cli:tables",
    "{path}",
    "%s%n{0}",
    "null",
    "NaN",
    "0" * 32,
    "j57000820c20a1g7104gm2rc1m70ynr8",
    "AQAAAAAAAAA=",
    "/////////38=",
    "//////////8=",
    "11111111-2222-4333-8444-555555555555",
)

_NUMBERS: Sequence[Any] = (
    0, 1, -1, 2, 31, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**53 + 1,
    2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**31), -(2**63), -(2**63) - 1, 0.1, -0.0, 1e-320,
    1e308, 1.5, Raw("1e400"), Raw("-1e400"), Raw("NaN"), Raw("Infinity"), Raw("-0"), Raw("-"),
    Raw("01"), Raw("1."), Raw("9" * 400), Raw("1e99999"), Raw("0." + "0" * 400 + "1"),
)  # fmt: skip

_WRONG_JSON: Sequence[Any] = (
    Raw('"\\ud800"'),
    Raw('"\\udc00\\ud800"'),
    Raw('"\\u00"'),
    Raw("'single'"),
    Raw("undefined"),
    Raw(""),
    Raw("[1,]"),
    Raw("{,}"),
    Raw('"\t"'),
    Raw("/* */1"),
    Raw("]"),
    Raw("}"),
)

_SPECIAL: Sequence[Any] = (
    {"$integer": "AQAAAAAAAAA="},
    {"$integer": "AQAAAAAAAAA"},
    {"$integer": "AQ=="},
    {"$integer": 5},
    {"$integer": "////////////"},
    {"$float": "AAAAAAAA+H8="},
    {"$float": "AAAAAAAA8D8="},
    {"$float": "AAAAAAAAAIA="},
    {"$bytes": ""},
    {"$bytes": "!"},
    {"$bytes": "YR=="},
    {"$bytes": ["a"]},
    {"$set": []},
    {"$integer": "AQAAAAAAAAA=", "b": 1},
    {"$undefined": 1},
)


def _deep(rng: random.Random) -> Raw:
    depth = rng.choice((15, 16, 17, 63, 64, 65, 254, 255, 300, 1000, 1023, 1024, 1025, 5000))
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")))
    end = rng.choice(("1", "[]", "{}", "null", ""))
    closings = rng.choice((depth, depth, depth, depth - 1))
    return Raw(opening * depth + end + closing * closings)


def _wide(rng: random.Random) -> Any:
    count = rng.choice((1023, 1024, 1025, 8192, 8193))
    if count < 2000 and rng.random() < 0.5:
        return {f"k{number}": 0 for number in range(count)}
    return [0] * count


def odd_value(rng: random.Random) -> Any:
    """A value from where the edges are."""
    roll = rng.random()
    if roll < 0.3:
        return rng.choice(ODD_TEXTS)
    if roll < 0.55:
        return rng.choice(_NUMBERS)
    if roll < 0.67:
        return rng.choice(_SPECIAL)
    if roll < 0.75:
        return rng.choice((None, True, False, [], {}, [[]], [{}], [None, None]))
    if roll < 0.85:
        return rng.choice(_WRONG_JSON)
    if roll < 0.93:
        return _deep(rng)
    if roll < 0.97:
        return _wide(rng)
    return "y" * rng.choice((8192, 70_000, 1_048_576))


_Path = tuple[Any, ...]


def _places(value: Any, at: _Path = ()) -> list[_Path]:
    found = [at]
    if type(value) is dict:
        for key, item in value.items():
            found += _places(item, (*at, key))
    elif type(value) is list:
        for index, item in enumerate(value[:50]):
            found += _places(item, (*at, index))
    return found


def _changed(value: Any, path: _Path, change: Callable[[Any], Any]) -> Any:
    if not path:
        return change(value)
    key, *rest = path
    if type(value) is dict:
        return {k: _changed(v, tuple(rest), change) if k == key else v for k, v in value.items()}
    return [
        _changed(item, tuple(rest), change) if index == key else item
        for index, item in enumerate(value)
    ]


def _at(value: Any, path: _Path) -> Any:
    for key in path:
        value = value[key]
    return value


def mangle_json(rng: random.Random, value: Any, pool: Sequence[Any] = ()) -> Any:
    """The value with one to three changes; `pool` holds things worth putting somewhere."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = _places(value)
        path = rng.choice(places)
        roll = rng.random()
        if roll < 0.4:
            put = rng.choice(pool) if pool and rng.random() < 0.5 else odd_value(rng)
            value = _changed(value, path, lambda _, put=put: put)
        elif roll < 0.55:
            donor = _at(value, rng.choice(places))
            value = _changed(value, path, lambda _, donor=donor: donor)
        elif roll < 0.7:
            wrap = rng.choice((lambda v: [v], lambda v: {"a": v}, lambda v: [v, v]))
            value = _changed(value, path, wrap)
        else:
            value = _changed(value, path, lambda v: _damaged(rng, v))
        if isinstance(value, Pairs | Raw):
            break
    return value


def _damaged(rng: random.Random, value: Any) -> Any:
    if type(value) is dict and value:
        key = rng.choice(list(value))
        match rng.randrange(4):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return {(rng.choice(ODD_TEXTS) if k == key else k): v for k, v in value.items()}
            case 2:
                return {**value, rng.choice(ODD_TEXTS): odd_value(rng)}
            case _:
                return Pairs([*value.items(), (key, odd_value(rng))])
    if type(value) is list:
        return rng.choice((value + value, value[:-1], [*value, odd_value(rng)], value[::-1]))
    if isinstance(value, Pairs):
        return Pairs(value + value)
    if isinstance(value, bool | dict) or value is None:
        return rng.choice((0, "", [], not value))
    if isinstance(value, int | float):
        return rng.choice((value + 1, value - 1, -value, str(value), value + 0.5, value * 2**32))
    return rng.choice(
        (value + "x", value[1:], value.upper(), value * 2, value[:-1] + "\0", [value])
    )


def write_json(value: Any) -> bytes:
    """The JSON text of a value as it comes, wrong parts included."""
    return _text(value).encode("utf-8", "surrogatepass")


def _text(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{json.dumps(k)}:{_text(v)}" for k, v in value) + "}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_text, value)) + "]"
    return json.dumps(value)


_INTERESTING = bytes((0, 1, 0x22, 0x5C, 0x7F, 0x80, 0xBF, 0xC0, 0xED, 0xFE, 0xFF, 0x0A, 0x0D))


def mangle_bytes(rng: random.Random, data: bytes, donors: Sequence[bytes] = ()) -> bytes:
    """The bytes with a few flips, cuts, repeats or pieces of others."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        size = len(data)
        at = rng.randrange(size + 1)
        to = min(size, at + rng.choice((1, 1, 2, 4, 8, 32, 200)))
        match rng.randrange(7):
            case 0 if size:
                at = min(at, size - 1)
                data = data[:at] + bytes((data[at] ^ 1 << rng.randrange(8),)) + data[at + 1 :]
            case 1 if size:
                data = data[:at] + bytes((rng.choice(_INTERESTING),)) + data[at + 1 :]
            case 2:
                data = data[:at]
            case 3:
                data = data[:at] + data[to:]
            case 4:
                data = data[:to] + data[at:]
            case 5 if donors:
                donor = rng.choice(donors)
                start = rng.randrange(len(donor) + 1)
                data = data[:at] + donor[start : start + rng.choice((1, 4, 16, 4096))] + data[to:]
            case _:
                data = data[:at] + rng.randbytes(rng.choice((1, 2, 4, 16))) + data[at:]
    return data
