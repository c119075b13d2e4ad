"""Values, documents, numbers of tables and limits, as functions and callers see them.

What a single value does has its tests in tests/values and in test_vectors.py; here it goes through
a whole deployment.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from reactive_store.auth.identity import ANONYMOUS
from reactive_store.errors import ConvexError
from reactive_store.limits import Limits
from reactive_store.schema.validators import v
from reactive_store.server.app import app_for
from reactive_store.values.ids import decode_id
from reactive_store.values.value import UNSET, Int64
from tests.conformance.test_vectors import FILES
from tests.functions.running import INLINE, FailedCall, Running
from tests.server.conftest import client_for

SCHEMA = """
schema = define_schema({
    "t": define_table(v.any()).index("by_a", ["a"]),
    "strict": define_table({"a": v.string(), "b": v.number()}),
})
"""
ECHO = """
@query(args={"x": v.any()})
async def echo(ctx, x):
    return x

@query(args={"a": v.string(), "b": v.number()})
async def takes(ctx, a, b):
    pass

@query(returns=v.object({"a": v.string(), "b": v.number()}))
async def gives(ctx):
    return {"a": "x"}

@query
async def nothing(ctx):
    return UNSET

@query
async def within(ctx):
    return [UNSET]

@query
async def around(ctx):
    return {"a": UNSET, "b": {"c": UNSET, "d": [{"e": UNSET}]}}
"""
MODULES = {"inline": INLINE, "m": ECHO}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Running]:
    async with Running.open(tmp_path, MODULES, schema=SCHEMA) as running:
        yield running


@pytest.fixture
async def http(store: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with client_for(app_for(store.backend)) as client:
        yield client


async def refused(store: Running, body: Any) -> str:
    """The first line of what a mutation failed with, without the frames."""
    with pytest.raises(FailedCall) as caught:
        await store.writes(body)
    return caught.value.failure.message.partition("\n    at ")[0]


async def answer_to(http: httpx.AsyncClient, args: bytes) -> bytes:
    """The encoded value of `echo`, or the text of its fault."""
    body = b'{"path":"m:echo","format":"convex_encoded_json","args":' + args + b"}"
    headers = {"Content-Type": "application/json"}
    answer = await http.post("/api/query", content=body, headers=headers)
    head, _, rest = answer.content.partition(b'{"status":"success","value":')
    if rest:
        assert head == b""
        return rest[:-1]
    told = answer.json()
    return str(told.get("errorMessage", told.get("message"))).partition("\n")[2].encode()


# ---- the encoded form ----


@pytest.mark.parametrize(
    ("sent", "returned"),
    [
        (b"null", None),
        (b"true", None),
        (b'{"$integer":"AAAAAAAAAIA="}', None),  # V2
        (b"5", b"5.0"),  # V5
        (b"5.0", None),
        (b"-0", b'{"$float":"AAAAAAAAAIA="}'),  # V3, V7
        (b'{"$float":"AAAAAAAAAAA="}', b"0.0"),  # V11
        (b'{"$float":"AAAAAAAA8H8="}', None),  # V3
        (b"9007199254740993", b"9007199254740992.0"),  # V7
        (b"1e21", b"1e+21"),
        ('"é\U0001f600"'.encode(), None),
        (b'{"$bytes":"+/8="}', None),  # V4
        (b'{"$bytes":"+/8"}', b'{"$bytes":"+/8="}'),  # V12
        (b'[1.0,"a",[]]', None),
        (b'{"b":1.0,"a":{}}', b'{"a":{},"b":1.0}'),  # V6
        (b'{"a":1.0,"a":2.0}', b'{"a":2.0}'),  # V14
    ],
)
async def test_a_value_comes_back_in_the_one_form_it_has(
    http: httpx.AsyncClient, sent: bytes, returned: bytes | None
):
    """V1, V9."""
    assert await answer_to(http, b'{"x":' + sent + b"}") == (returned or sent)


RESERVED = "Field name {} starts with '$', which is reserved."


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b'{"$integer":"AQ=="}', "Int64 must be exactly eight bytes"),  # V10
        (b'{"$float":"AAAAAAAA8D8="}', "Float64 1 should be encoded as a number"),  # V11
        (b'{"$integer":"AQAAAAAAAAA=","x":1}', RESERVED.format("$integer")),  # V13
        (b'{"$undefined":null}', RESERVED.format("$undefined")),  # V21
        (b'{"$commitTs":null}', RESERVED.format("$commitTs")),  # V26
        (b'{"a":[{"$set":[1]}]}', RESERVED.format("$set")),  # V13
        (
            b"[%b]" % b",".join([b"1"] * 8193),  # V37
            "Array length is too long (8193 > maximum length 8192)",
        ),
    ],
    ids=lambda part: part[:40],
)
async def test_what_is_no_value_is_refused_before_any_function_runs(
    http: httpx.AsyncClient, sent: bytes, text: str
):
    """V91."""
    told = await answer_to(http, b'{"x":' + sent + b"}")
    assert told.decode() == f"Invalid arguments for m:echo: {text}\n"


@pytest.mark.parametrize("sent", [b"NaN", b"Infinity", b"1e400", b'"\\ud800"', b'"\xff"'])
async def test_what_is_no_json_is_no_request(http: httpx.AsyncClient, sent: bytes):
    """V7, V8, V15."""
    answer = await http.post(
        "/api/query",
        content=b'{"path":"m:echo","args":{"x":' + sent + b"}}",
        headers={"Content-Type": "application/json"},
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "BadJsonBody")


async def test_missing_values_of_results(store: Running):
    """V21."""
    assert await store.query("nothing") is None
    assert await store.query("around") == {"b": {"d": [{}]}}
    with pytest.raises(FailedCall) as caught:
        await store.query("within")
    assert caught.value.failure.message.startswith(
        "Function m:within return value invalid: UNSET is not a valid Convex value"
    )
    assert "(present at path [0])" in caught.value.failure.message


async def test_a_nan_of_a_function_is_the_one_nan(store: Running):
    """V24."""

    async def body(ctx: Any) -> float:
        infinite = float("inf")
        return math.copysign(infinite - infinite, -1.0)

    key = store.keep(body)
    answer = await store.backend.live_queries.query(
        "inline.js:read", json.dumps({"key": key}).encode(), ANONYMOUS
    )
    assert answer.value == b'{"$float":"AAAAAAAA+H8="}'  # type: ignore[union-attr]


async def test_the_data_of_an_error_is_its_message(store: Running):
    """V25."""
    for data, message in (
        ("as it is", "as it is"),
        ({"n": Int64(5), "a": [1, None]}, '{"n":"5n","a":[1,null]}'),
    ):

        async def body(ctx: Any, data: Any = data) -> None:
            raise ConvexError(data)

        assert await refused(store, body) == f"Uncaught ConvexError: {message}"


# ---- documents ----


async def test_the_fields_a_document_gets(store: Running):
    """V40."""

    async def body(ctx: Any) -> Any:
        ident = await ctx.db.insert("t", {"a": 1})
        return [await ctx.db.get(ident), ctx.now]

    document, now = await store.writes(body)
    assert list(document) == ["_creationTime", "_id", "a"]
    assert isinstance(document["_id"], str)
    assert v.id("t").matches(document["_id"], store.database.catalog)
    assert 0 <= document["_creationTime"] - now < 1000
    assert document["_creationTime"] < 2**53


async def test_checks_of_a_write_come_in_order(store: Running):
    """V43."""
    ident = await store.writes(lambda ctx: ctx.db.insert("strict", {"a": "x", "b": 1}))
    gone = await store.writes(lambda ctx: ctx.db.insert("strict", {"a": "x", "b": 1}))
    await store.writes(lambda ctx: ctx.db.delete(gone))
    large = "x" * (1 << 20)
    for body, text in (
        # The value, then the table.
        (
            lambda ctx: ctx.db.insert("no name", {"$a": 1}),
            "Invalid argument `value` for `db.insert`: Field name $a starts",
        ),
        (
            lambda ctx: ctx.db.insert("no name", {"a": 1}),
            "Invalid argument `table` for `db.insert`: Identifier no name has",
        ),
        # The id, its table, the value; then whether the document is there.
        (
            lambda ctx: ctx.db.patch("t", "junk", {"$a": 1}),
            "Invalid argument `id` for `db.patch`: Unable to decode ID",
        ),
        (
            lambda ctx: ctx.db.patch("t", gone, {"$a": 1}),
            'Invalid argument `id` for `db.patch`: expected to be an Id<"t">',
        ),
        (
            lambda ctx: ctx.db.patch(gone, {"$a": 1}),
            "Invalid argument `value` for `db.patch`: Field name $a starts",
        ),
        (
            lambda ctx: ctx.db.patch(gone, {"_x": 1}),
            f"Update on nonexistent document ID {gone}",
        ),
        # System fields, the schema, the size.
        (
            lambda ctx: ctx.db.patch(ident, {"_x": 1, "a": 5}),
            "isn't a valid document: Field '_x' starts with an underscore",
        ),
        (
            lambda ctx: ctx.db.patch(ident, {"a": large, "b": large}),
            'Failed to insert or update a document in table "strict" because it does not match',
        ),
        (lambda ctx: ctx.db.patch(ident, {"a": large}), "Value is too large (1.00 MiB"),
    ):
        assert text in await refused(store, body)


@pytest.mark.parametrize(
    "envelope",
    [row for row in FILES["validation"]["envelopes"] if not row["where"].startswith("push")],
    ids=lambda row: row["where"],
)
async def test_a_fault_is_told_in_the_envelope_of_its_place(
    store: Running, envelope: dict[str, str]
):
    """V90, V91."""
    where = envelope["where"]
    if where.startswith("db."):
        expected = envelope["text"].replace('"users"', '"strict"')
        for method in ("insert", "replace"):

            async def body(ctx: Any, method: str = method) -> None:
                target = "strict"
                if method == "replace":
                    target = await ctx.db.insert("strict", {"a": "x", "b": 1})
                await getattr(ctx.db, method)(target, {"a": "x"})

            assert await refused(store, body) == f"Uncaught Error: {expected}"
    else:
        call = store.query("takes", a="x") if "arguments" in where else store.query("gives")
        with pytest.raises(FailedCall) as caught:
            await call
        assert caught.value.failure.message == envelope["text"] + "\n"


async def test_tables_out_of_the_schema_and_deletions_are_not_checked(store: Running):
    """V86."""

    async def body(ctx: Any) -> None:
        await ctx.db.insert("elsewhere", {"a": [None, {"b": Int64(1)}]})
        ident = await ctx.db.insert("strict", {"a": "x", "b": 1})
        with pytest.raises(Exception, match="does not match the schema"):
            await ctx.db.patch(ident, {"b": "y"})
        await ctx.db.delete(ident)

    await store.writes(body)


# ---- creation time ----


async def times(ctx: Any, table: str = "t", count: int = 1) -> list[float]:
    found = []
    for _ in range(count):
        document = await ctx.db.get(await ctx.db.insert(table, {}))
        found.append(document["_creationTime"])
    return found


def are_neighbours(found: list[float]) -> bool:
    return all(math.nextafter(a, math.inf) == b for a, b in pairwise(found))


async def test_documents_of_one_transaction_are_one_step_of_a_double_apart(store: Running):
    """V55."""

    async def body(ctx: Any) -> Any:
        return [await times(ctx, count=10), ctx.now]

    found, now = await store.writes(body)
    assert 0 <= found[0] - now < 1000
    assert are_neighbours(found)


async def test_nested_mutations_go_on_with_the_time_also_when_they_fail(store: Running):
    """V56."""

    async def fails(ctx: Any) -> None:
        await times(ctx, count=3)
        raise ConvexError("child")

    async def body(ctx: Any) -> list[float]:
        found = await times(ctx)
        found += await ctx.run_mutation("inline:write", key=store.keep(times))
        with pytest.raises(ConvexError):
            await ctx.run_mutation("inline:write", key=store.keep(fails))
        return [*found, *await times(ctx)]

    first, second, last = await store.writes(body)
    assert are_neighbours([first, second])
    step = math.ulp(second)
    assert last == second + 4 * step  # three were given to what was undone


async def test_no_change_of_a_document_changes_when_it_was_created(store: Running):
    """V57."""

    async def body(ctx: Any) -> list[float]:
        ident = await ctx.db.insert("t", {"a": 1})
        seen = [(await ctx.db.get(ident))["_creationTime"]]
        await ctx.db.patch(ident, {"a": 2, "_creationTime": UNSET})
        seen.append((await ctx.db.get(ident))["_creationTime"])
        await ctx.db.replace(ident, {})
        return [*seen, (await ctx.db.get(ident))["_creationTime"]]

    assert len(set(await store.writes(body))) == 1


# ---- tables ----


@pytest.mark.parametrize("options", ["", ", schema_validation=False"])
async def test_tables_of_a_schema_are_made_in_order_of_their_names(tmp_path: Path, options: str):
    """V48, V49, V95."""
    schema = (
        "schema = define_schema({'z': define_table({'n': v.number()}), "
        f"'b': define_table({{}}), 'm': define_table({{}})}}{options})"
    )
    async with Running.open(tmp_path, MODULES, schema=schema) as store:

        async def number(ctx: Any, table: str) -> int:
            return decode_id(await ctx.db.insert(table, {} if table != "z" else {"n": 1}))[0]

        async def body(ctx: Any) -> list[int]:
            return [await number(ctx, table) for table in ("a", "z", "m", "b")]

        # The one that the schema does not name comes last, although it is used first.
        assert await store.writes(body) == [10_004, 10_003, 10_002, 10_001]


# ---- limits ----

ADVICE = (
    "Consider using smaller limits in your queries, paginating your queries, or using indexed "
    "queries with a selective index range expressions."
)


async def reads(ctx: Any) -> None:
    await ctx.db.query("t").collect()


async def ranges(ctx: Any) -> None:
    for n in range(5):
        await ctx.db.query("t").with_index("by_a", a=n).collect()


async def inserts(ctx: Any) -> None:
    for _ in range(6):
        await ctx.db.insert("t", {"text": "x" * 100})


@pytest.mark.parametrize(
    ("limit", "most", "body", "text"),
    [
        (
            "read_documents",
            5,
            reads,
            f"Too many documents read in a single function execution (limit: 5). {ADVICE}",
        ),
        (
            "read_bytes",
            500,
            reads,
            f"Too many bytes read in a single function execution (limit: 500 bytes). {ADVICE}",
        ),
        (
            "read_intervals",
            3,
            ranges,
            f"Too many reads in a single function execution (limit: 3). {ADVICE}",
        ),
        (
            "written_documents",
            5,
            inserts,
            "Too many writes in a single function execution (limit: 5)",
        ),
        (
            "written_bytes",
            512,
            inserts,
            "Too many bytes written in a single function execution (limit: 512 B)",
        ),
    ],
    ids=lambda part: part if isinstance(part, str) and " " not in part else "",
)
async def test_each_limit_of_a_transaction_says_what_it_is(
    tmp_path: Path, limit: str, most: int, body: Any, text: str
):
    """F179, V109."""
    async with Running.open(tmp_path / "a", MODULES, schema=SCHEMA, on_disk=True) as store:
        await store.writes(inserts)
    limits = replace(Limits(), **{limit: most})
    async with Running.open(
        tmp_path / "a", MODULES, schema=SCHEMA, limits=limits, on_disk=True
    ) as store:
        assert await refused(store, body) == f"Uncaught Error: {text}"


def test_the_limits_are_those_of_convex():
    """V36, V37, V38, V109."""
    limits = Limits()
    mib = 1024 * 1024
    assert (limits.read_bytes, limits.written_bytes) == (16 * mib, 16 * mib)
    assert (limits.read_documents, limits.written_documents) == (32_000, 16_000)
    assert limits.read_intervals == 4096
    assert (limits.arguments_bytes, limits.result_bytes) == (16 * mib, 16 * mib)
    assert (limits.value_bytes, limits.document_bytes) == (32 * mib, mib)
    assert (limits.array_elements, limits.object_fields) == (8192, 1024)


async def test_a_deletion_is_a_write_without_size(tmp_path: Path):
    """V110."""
    limits = replace(Limits(), written_documents=3, written_bytes=1000)
    async with Running.open(tmp_path, MODULES, schema=SCHEMA, limits=limits) as store:
        insert = lambda ctx: ctx.db.insert("t", {"text": "x" * 700})  # noqa: E731
        ids = [await store.writes(insert) for _ in range(4)]

        async def delete(ctx: Any, count: int) -> None:
            for ident in ids[:count]:
                await ctx.db.delete(ident)

        assert "Too many writes" in await refused(store, lambda ctx: delete(ctx, 4))
        await store.writes(lambda ctx: delete(ctx, 3))

        async def grows(ctx: Any) -> None:
            for n in range(2):
                await ctx.db.patch(ids[3], {"n": n})

        assert "Too many bytes written" in await refused(store, grows)


async def test_what_one_mutation_schedules_is_bounded(tmp_path: Path):
    """V112."""
    limits = Limits()
    assert (limits.scheduled_functions, limits.scheduled_bytes) == (1000, 16 * 1024 * 1024)
    limits = replace(limits, scheduled_functions=3, scheduled_bytes=1000)
    async with Running.open(tmp_path, MODULES, schema=SCHEMA, limits=limits) as store:

        async def schedules(ctx: Any, count: int, chars: int = 1) -> None:
            for _ in range(count):
                hour = timedelta(hours=1)
                await ctx.scheduler.run_after(hour, "inline:write", key="x" * chars)

        await store.writes(lambda ctx: schedules(ctx, 3))
        assert await refused(store, lambda ctx: schedules(ctx, 4)) == (
            "Uncaught Error: Too many functions scheduled by this mutation (limit: 3)"
        )
        assert await refused(store, lambda ctx: schedules(ctx, 3, 400)) == (
            "Uncaught Error: Too large total size of the arguments of scheduled functions from "
            "this mutation (limit: 1000 bytes)"
        )
