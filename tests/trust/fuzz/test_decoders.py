"""Everything that reads bytes of strangers: what it takes it gives back, the rest it refuses."""

from __future__ import annotations

import functools
import json
import math
import random
import re
import struct
import tracemalloc
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, seed, settings
from hypothesis import strategies as st

from reactive_store.auth.keys import AdminKeys
from reactive_store.errors import BadRequest, ProtocolError, Unauthenticated
from reactive_store.functions.names import name_problem, parse_path, split_path, to_wire
from reactive_store.functions.pagination import CursorCodec
from reactive_store.limits import Limits
from reactive_store.schema.tables import Schema, define_schema, define_table
from reactive_store.server.authorization import split_admin_key
from reactive_store.server.client_version import client_of_header, client_of_path
from reactive_store.sync.protocol import decode_client, decode_ts, encode_ts
from reactive_store.values.ids import decode_id, encode_id, table_number_of
from reactive_store.values.order import encode_key, encode_key_parts
from reactive_store.values.value import UNSET, Int64, normalize
from reactive_store.values.wire import (
    dumps,
    encode_normalized,
    loads,
    to_clean_json,
    to_export_json,
)
from tests.trust.breakage import Breakage
from tests.trust.effort import EFFORT, Effort
from tests.trust.fuzz.breakages import named
from tests.trust.fuzz.documented import id_refusals
from tests.trust.fuzz.mangling import (
    ODD_TEXTS,
    mangle_bytes,
    mangle_json,
    odd_value,
    write_json,
)
from tests.trust.fuzz.shrinking import report
from tests.values.strategies import values

_EXAMPLES = settings(max_examples=EFFORT.pick(300, 8000), deadline=None, database=None)
_TEXTS = st.text(st.characters(), max_size=40) | st.sampled_from(ODD_TEXTS)
_DEPTH = Limits().value_nesting


def fuzzed(test: Any) -> Callable[[], int]:
    """Hypothesis with this run's effort and seed; says how many examples it has been through."""
    inner, went_through = test.hypothesis.inner_test, 0

    @functools.wraps(inner)
    def counted(*args: Any, **named: Any) -> None:
        nonlocal went_through
        inner(*args, **named)
        went_through += 1

    test.hypothesis.inner_test = counted
    explore = seed(EFFORT.seed)(_EXAMPLES(test))

    def run() -> int:
        nonlocal went_through
        went_through = 0
        explore()
        return went_through

    return run


def tried(call: Callable[[], Any], *errors: type[Exception]) -> Any:
    """What a call gives, or the error of these classes that it raises."""
    try:
        return call()
    except errors as error:
        return error


# ---- an independent reading of the order of values ----


def rank(value: Any) -> Any:
    """A Python object that compares as docs/reference/values.md orders values."""
    if value is UNSET:
        return (0,)
    if value is None:
        return (1,)
    if isinstance(value, bool):
        return (4, value)
    if isinstance(value, Int64):
        return (2, int(value))
    if isinstance(value, int | float):
        bits = struct.unpack(">q", struct.pack(">d", value))[0]
        return (3, bits if bits >= 0 else bits ^ 0x7FFF_FFFF_FFFF_FFFF)
    if isinstance(value, str):
        return (5, [ord(char) for char in value])
    if isinstance(value, bytes):
        return (6, list(value))
    if isinstance(value, list):
        return (7, [rank(item) for item in value])
    return (8, [(rank(name)[1], rank(value[name])) for name in sorted(value)])


def same(a: Any, b: Any) -> bool:
    """Equal with types, signs of zero and bits of NaN."""
    return bool(rank(a) == rank(b))


@fuzzed
@given(st.lists(st.tuples(values, values), min_size=1, max_size=3))
@example([(-0.0, 0.0)])
@example([("a", "a\0"), ("a\0", "a\x01")])
@example([({"": 1}, {}), ([[]], [])])
@example([(5e-324, -5e-324)])
def _keys_sort_like_values(pairs: list[tuple[Any, Any]]) -> None:
    left, right = ([normalize(pair[side]) for pair in pairs] for side in (0, 1))
    a, b = encode_key_parts(left), encode_key_parts(right)
    ra, rb = [rank(value) for value in left], [rank(value) for value in right]
    assert (a < b, a == b) == (ra < rb, ra == rb), (left, right)


def test_keys_sort_as_an_independent_reading_of_the_order_says(evidence: Any) -> None:
    examples = _keys_sort_like_values()
    edges = [
        Int64(sign * 2**bits + by) for bits in range(63) for sign in (-1, 1) for by in (-1, 0, 1)
    ]
    edges = sorted({*edges, Int64(-(2**63)), Int64(2**63 - 1)})
    assert [*map(encode_key, edges)] == sorted(map(encode_key, edges))
    assert [loads(dumps(edge)) for edge in edges] == edges
    evidence("robust", values=examples + len(edges))


# ---- JSON ----


@fuzzed
@given(values)
@example(-0.0)
@example([math.nan, math.inf, -math.inf])
@example({"a" * 1024: 1})
@example("\ud7ff\ue000\U0010ffff\0")
def _values_come_back(value: Any) -> None:
    normal = normalize(value)
    text = dumps(value)
    assert same(loads(text), normal)
    assert dumps(loads(text)) == text
    json.loads(to_clean_json(value))
    json.loads(to_export_json(value))


def test_values_come_back_from_json_as_they_were(evidence: Any) -> None:
    evidence("robust", values=_values_come_back())


def reads_as_documented(text: bytes) -> str | None:
    """What is wrong with how JSON text of a stranger is read: None when nothing is."""
    try:
        value = loads(text)
    except BadRequest as error:
        known = ("BadJsonBody", "InvalidValue", "InvalidFieldName", "TooNestedError",
                 "ArrayTooLong", "TooManyFieldsError")  # fmt: skip
        return None if error.code in known else f"code {error.code}: {error.message[:100]}"
    except Exception as error:
        return f"raised {error!r}"[:200]
    if depth(value) > _DEPTH:
        return f"accepted a depth of {depth(value)}"
    again = encode_normalized(value)  # `dumps` is for what Python code hands over
    return None if same(loads(again), value) else f"changed to {again[:100]!r}"


def depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level:
        level = [
            part
            for item in level
            if isinstance(item, list | dict)
            for part in ((item.values() if isinstance(item, dict) else item) or (None,))
        ]
        deepest += bool(level)
    return deepest


def some_json(rng: random.Random) -> bytes:
    value: Any = {"a": [1, "b", {"$integer": "AQAAAAAAAAA="}, None], "c": {"d": -0.5, "e": True}}
    text = write_json(mangle_json(rng, value) if rng.random() < 0.8 else odd_value(rng))
    return (
        mangle_bytes(rng, text, [b'{"$float":"', b"-0", b"\\ud800"]) if rng.random() < 0.4 else text
    )


def explore_json(first: int, count: int) -> tuple[int, str | None]:
    """Read `count` texts; how many, and the first that was read wrongly, with how."""
    for number in range(count):
        text = some_json(random.Random(f"json {first} {number}"))
        problem = reads_as_documented(text)
        if problem is not None:
            while len(text) > 1:  # shorter from both ends while it shows
                shorter = next(
                    (part for part in (text[1:], text[:-1]) if reads_as_documented(part)), None
                )
                if shorter is None:
                    break
                text = shorter
            return number + 1, report("robust JSON", f"{first} {number}", text, problem)  # type: ignore[arg-type]
    return count, None


def test_json_of_strangers_is_read_or_refused(effort: Effort, evidence: Any) -> None:
    tried, problem = explore_json(effort.seed, effort.pick(4000, 60_000))
    assert problem is None, problem
    evidence("robust", texts=tried)


# ---- ids ----


def reads_ids_as_documented(text: str) -> str | None:
    patterns = [re.sub(r"FOUND|COMPUTED|N$", r"\\d+", re.escape(form)) for form in id_refusals()]
    try:
        number, internal = decode_id(text)
    except BadRequest as error:
        reason = error.message.removeprefix("Unable to decode ID: ")
        fits = error.code == "InvalidId" and any(re.fullmatch(p, reason) for p in patterns)
        if not fits:
            return f"refused {text!r} with {error.code}: {error.message}"
        return None if table_number_of(text) == 0 else "table of what is no id"
    return (
        None if encode_id(number, internal) == text else f"{text!r} is not the spelling of its id"
    )


def explore_ids(first: int, count: int) -> tuple[int, str | None]:
    """One or two changes to an id make it none, except with a chance of one in 65,536."""
    taken = 0
    for number in range(count):
        rng = random.Random(f"ids {first} {number}")
        table = rng.choice((1, 127, 128, 539, 10001, 16383, 16384, 2**21, 2**28, 2**32 - 1))
        text = encode_id(table, rng.randbytes(16))
        other = encode_id(10001, rng.randbytes(16))
        changed = mangle_bytes(rng, text.encode(), [other.encode()]).decode("latin-1")
        problem = reads_ids_as_documented(changed)
        if problem is not None:
            return number + 1, problem
        taken += changed not in (text, other) and table_number_of(changed) != 0
    if taken > 2 + count // 5000:
        return count, f"{taken} of {count} damaged ids were taken for ids"
    return count, None


def test_damaged_ids_are_no_ids(effort: Effort, evidence: Any) -> None:
    tried, problem = explore_ids(effort.seed, effort.pick(4000, 60_000))
    assert problem is None, problem
    evidence("robust", ids=tried)


@fuzzed
@given(_TEXTS)
@example("0" * 31)
@example("7" * 37)
@example("l" * 32)
@example("é" * 16)
@example("\ud800" * 11)
def _any_text_as_id(text: str) -> None:
    assert reads_ids_as_documented(text) is None


def test_any_text_is_an_id_or_refused_as_documented(evidence: Any) -> None:
    evidence("robust", texts=_any_text_as_id())


def _path_of_many_folders(number: int) -> None:
    with pytest.raises(BadRequest, match="too long"):
        parse_path(f"a{number}/" * 25_000 + "b")


@pytest.mark.parametrize(
    "ask",
    [lambda n: table_number_of(f"{n}" + "x" * 100_000), _path_of_many_folders],
    ids=["ids", "paths"],
)
def test_what_strangers_ask_for_is_not_kept_at_any_length(
    ask: Callable[[int], object], evidence: Any
) -> None:
    """A cache of the last questions must not hold what comes at any length."""
    asked = 0
    tracemalloc.start()
    try:
        while asked < 200:
            ask(asked)
            asked += 1
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1_000_000
    evidence("robust", texts=asked)


# ---- cursors ----


def explore_cursors(first: int, count: int) -> tuple[int, str | None]:
    """Cursors come back at their own query; damaged, made up or elsewhere they are refused."""
    codec, other = CursorCodec(b"s" * 32), CursorCodec(b"t" * 32)
    for number in range(count):
        rng = random.Random(f"cursors {first} {number}")
        query, stranger = rng.randbytes(8), rng.randbytes(8)
        position = rng.choice((None, b"", rng.randbytes(rng.choice((1, 40, 300)))))
        cursor = codec.encode(query, position)
        if codec.decode(query, cursor) != position:
            return number + 1, f"{position!r} came back as {codec.decode(query, cursor)!r}"
        raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        flipped = bytearray(raw)
        flipped[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        damaged = urlsafe_b64encode(flipped).rstrip(b"=").decode()
        mangled = mangle_bytes(rng, cursor.encode(), [damaged.encode()]).decode("latin-1")
        for text, name, asked in (
            (damaged, "one bit changed", query),
            (mangled, "damaged", query),
            (cursor, "of another query", stranger),
            (other.encode(query, position), "of another deployment", query),
            (rng.choice(ODD_TEXTS), "made up", query),
        ):
            try:
                found = codec.decode(asked, text)
            except BadRequest as error:
                if error.code == "InvalidCursor" and error.data is not None:
                    continue
                return number + 1, f"a cursor {name} was refused with {error.code}"
            if not (asked == query and found == position and same_base64(text, cursor)):
                return number + 1, f"a cursor {name} was taken: {text!r} is {found!r}"
    return count, None


def same_base64(a: str, b: str) -> bool:
    """Whether two texts carry the same bytes: what is sealed, whatever its spare bits say."""
    raw_a, raw_b = (
        urlsafe_b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)) for text in (a, b)
    )
    return raw_a == raw_b


def test_only_sealed_cursors_of_the_query_itself_are_taken(effort: Effort, evidence: Any) -> None:
    tried, problem = explore_cursors(effort.seed, effort.pick(1200, 20_000))
    assert problem is None, problem
    evidence("robust", cursors=tried * 5)


# ---- messages, names and credentials ----

_CLIENT_MESSAGES: list[Any] = [
    {"type": "Connect", "sessionId": "11111111-2222-4333-8444-555555555555",
     "connectionCount": 0, "lastCloseReason": None, "maxObservedTimestamp": "AQAAAAAAAAA=",
     "clientTs": 1},
    {"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1, "modifications": [
        {"type": "Add", "queryId": 0, "udfPath": "a:b", "args": [{}], "journal": None},
        {"type": "Remove", "queryId": 0}]},
    {"type": "Mutation", "requestId": 0, "udfPath": "a:b", "args": [{}], "componentPath": None},
    {"type": "Action", "requestId": 0, "udfPath": "a:b", "args": {"a": 1}},
    {"type": "Authenticate", "baseVersion": 0, "tokenType": "User", "value": "a.b.c"},
    {"type": "Authenticate", "baseVersion": 0, "tokenType": "Admin", "value": "k",
     "impersonating": {"subject": "s", "issuer": "i"}},
    {"type": "Event", "eventType": "e", "event": {"a": 1}},
]  # fmt: skip


def test_client_messages_decode_or_are_protocol_errors(effort: Effort, evidence: Any) -> None:
    count, taken = effort.pick(6000, 80_000), 0
    for number in range(count):
        rng = random.Random(f"messages {effort.seed} {number}")
        text = write_json(mangle_json(rng, rng.choice(_CLIENT_MESSAGES)))
        if rng.random() < 0.3:
            text = mangle_bytes(rng, text, [b'"type":', b"\xed\xa0\x80"])
        message = tried(lambda text=text: decode_client(text), ProtocolError)
        if isinstance(message, ProtocolError):
            assert message.message.startswith("Received Invalid JSON on websocket: ")
            assert message.message.encode()
            continue
        taken += 1
        for name in ("request_id", "base_version", "new_version", "connection_count"):
            assert 0 <= getattr(message, name, 0) < 2**32, (text[:300], message)
    assert 0.05 < taken / count < 0.95
    evidence("robust", messages=count)


@fuzzed
@given(_TEXTS | st.integers(0, 2**63 - 1).map(encode_ts))
@example("/////////38=")
@example("//////////8=")
def _timestamps(text: str) -> None:
    try:
        ts = decode_ts(text)
    except ValueError:
        return
    assert 0 <= ts < 2**63
    assert encode_ts(ts) == text


@fuzzed
@given(st.one_of(_TEXTS, st.from_regex(r"[a-z_./:A-Z0-9]{0,70}", fullmatch=True)))
@example("a" * 64 + ":" + "b" * 64)
@example("a" * 65)
@example("_:_")
@example("a.js.js:b")
@example("a//b:c")
@example(":")
def _function_paths(text: str) -> None:
    canonical = tried(lambda: parse_path(text), BadRequest)
    if isinstance(canonical, BadRequest):
        assert canonical.code == "BadConvexFunctionIdentifier"
        return
    module, function = split_path(canonical)
    assert parse_path(canonical) == canonical
    assert module.endswith(".js")
    assert name_problem(function) is None
    assert to_wire(to_wire(function)) == to_wire(function) == function
    assert ".." not in module.split("/")


@fuzzed
@given(_TEXTS)
@example("npm-" + "9" * 5000 + ".0.0")
@example("npm-1.2.3-alpha.1+b-1.2.3")
@example("-1.2.3")
def _client_versions(text: str) -> None:
    for read in (client_of_header, client_of_path):
        client = tried(lambda read=read: read(text), BadRequest)
        if isinstance(client, BadRequest):
            assert client.code == "InvalidClientVersion"
        else:
            assert client.version is None or all(0 <= n < 10**9 for n in client.version)


def test_names_and_timestamps_are_read_or_refused(evidence: Any) -> None:
    tried = sum(each() for each in (_timestamps, _function_paths, _client_versions))
    evidence("robust", texts=tried)


def explore_admin_keys(first: int, count: int) -> tuple[int, str | None]:
    """Keys that differ from the right one in anything but its decoration must be refused."""
    keys = AdminKeys("reactive-store", bytes(range(32)))
    right = keys.issue()
    for number in range(count):
        rng = random.Random(f"admin {first} {number}")
        forged = mangle_bytes(rng, right.encode(), [b"prod:", b"|", b"01"]).decode("latin-1")
        stranger = AdminKeys("reactive-store", rng.randbytes(32)).issue()
        for text in (forged, stranger, right[: rng.randrange(len(right))], rng.choice(ODD_TEXTS)):
            bare = text.strip().rpartition("|")
            is_right = bare[0].rpartition(":")[2] + bare[1] + bare[2] == right
            try:
                key, _ = split_admin_key(text)
            except BadRequest as error:
                if error.code != "HeaderParseFailure":
                    return number + 1, f"{text!r} was refused with {error.code}"
            else:
                if keys.verify(key) and not is_right and key.strip() != right:
                    return number + 1, f"{text!r} was accepted"
            if keys.verify(text) and not is_right:
                return number + 1, f"{text!r} was accepted"
    return count, None


def test_admin_keys_cannot_be_guessed_from_parts(effort: Effort, evidence: Any) -> None:
    tried, problem = explore_admin_keys(effort.seed, effort.pick(2500, 40_000))
    assert problem is None, problem
    evidence("robust", keys=tried * 4)


async def test_no_token_of_a_stranger_is_taken(effort: Effort, evidence: Any) -> None:
    from reactive_store.auth.authenticator import Authenticator

    authenticator = Authenticator(AdminKeys("n", bytes(32)))
    count = effort.pick(2500, 40_000)
    for number in range(count):
        rng = random.Random(f"tokens {effort.seed} {number}")
        claims = write_json(mangle_json(rng, {"iss": "i", "sub": "s", "exp": 1, "aud": ["a"]}))
        parts = [urlsafe_b64encode(part).rstrip(b"=") for part in (b'{"alg":"none"}', claims, b"")]
        token = mangle_bytes(rng, b".".join(parts), [b".", b"=="]).decode("latin-1")
        with pytest.raises(Unauthenticated) as caught:
            await authenticator.authenticate(token)
        assert caught.value.code in {"InvalidAuthHeader", "NoAuthProvider"}
    evidence("robust", tokens=count)


# ---- schemas ----


def some_schema(rng: random.Random) -> Schema:
    """A schema whose names and fields come from where the edges are."""
    tables = {}
    for _ in range(rng.randrange(3)):
        fields = {
            rng.choice((*ODD_TEXTS, "a", "b")): _validator(rng) for _ in range(rng.randrange(3))
        }
        table = define_table(fields)
        for _ in range(rng.randrange(3)):
            path = [
                rng.choice((*ODD_TEXTS, "a", "b", "a.b", "..", "a."))
                for _ in range(rng.randrange(4))
            ]
            table = table.index(rng.choice((*ODD_TEXTS, "by_a", "by_id")), path)
        tables[rng.choice((*ODD_TEXTS, "t", "users", "T" * 64))] = table
    return define_schema(tables)


def _validator(rng: random.Random) -> Any:
    from reactive_store.schema.validators import Validator

    form = rng.choice(
        (
            {"type": "string"},
            {"type": "id", "tableName": "users"},
            {"type": "union", "value": [{"type": "null"}, {"type": "number"}]},
            {"type": "object", "value": {"a": {"fieldType": {"type": "any"}, "optional": True}}},
            {"type": "record", "keys": {"type": "string"},
             "values": {"fieldType": {"type": "any"}, "optional": False}},
            {"type": "literal", "value": {"$integer": "AQAAAAAAAAA="}},
            {"type": "array", "value": {"type": "bytes"}},
        )
    )  # fmt: skip
    changed = write_json(mangle_json(rng, form) if rng.random() < 0.6 else form)
    try:
        return Validator.from_json(json.loads(changed))
    except (ValueError, RecursionError):
        return Validator.from_json(form)


def test_schemas_are_built_or_refused_with_a_code(effort: Effort, evidence: Any) -> None:
    count, built = effort.pick(1500, 20_000), 0
    for number in range(count):
        rng = random.Random(f"schema {effort.seed} {number}")
        schema = tried(lambda rng=rng: some_schema(rng), BadRequest)
        if isinstance(schema, BadRequest):
            assert schema.code != "BadRequest", schema.message
            continue
        built += 1
        json.dumps(schema.to_json())
    assert 0 < built < count
    evidence("robust", schemas=count)


# ---- broken on purpose ----


_EXPLORERS: dict[str, Callable[[int, int], tuple[int, str | None]]] = {
    "id-checksum": explore_ids,
    "cursor-seal": explore_cursors,
    "cursor-query": explore_cursors,
    "json-depth": explore_json,
    "key-prefix": explore_admin_keys,
}


@pytest.mark.parametrize("breakage", named(*_EXPLORERS), ids=str)
def test_a_decoder_that_checks_too_little_is_found(
    breakage: Breakage, monkeypatch: pytest.MonkeyPatch, evidence: Any
) -> None:
    breakage.apply(monkeypatch)
    tried, problem = _EXPLORERS[breakage.name](1, 1200)
    assert problem is not None
    evidence("robust", breakage=breakage, found=1, inputs=tried)
