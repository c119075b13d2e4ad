"""What callers can observe of functions, one statement of Convex's behaviour per test.

Numbers are those of the statements in docs/reference/functions.md; F1–F29 registration, arguments
and paths, F117–F123 actions, F175–F181 errors, logs and limits. Reads, writes and transactions
have files of their own.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reactive_store.auth.identity import ANONYMOUS
from reactive_store.errors import BadRequest
from reactive_store.functions.outcome import client_message
from reactive_store.limits import Limits
from reactive_store.values.value import Int64
from tests.functions.running import ADMIN, INLINE, FailedCall, Running, user, write_app

APP = """
@query
async def bare(ctx, **anything):
    return anything

@query(args=v.any())
async def unchecked(ctx, **anything):
    return anything

@query(args={})
async def nothing(ctx):
    return "ok"

@query(args={"b": v.string(), "a": v.number(), "c": v.optional(v.string())})
async def several(ctx, a, b, c):
    return [a, b, c]

@query(args={"c": v.optional(v.nullable(v.string()))})
async def nullable(ctx, c):
    return c

@query(args={"n": v.number()})
async def number(ctx, n):
    return n

@query(args={"n": v.int64()})
async def int64(ctx, n):
    return n

@query(args={"id": v.id("a")})
async def of_a(ctx, id):
    return id

@query(args={"id": v.id("never_made")})
async def of_never(ctx, id):
    return id

@query(args={"x": v.union(v.string(), v.literal(7), v.object({"k": v.number()}))})
async def union(ctx, x):
    return x

@query(args={"r": v.record(v.string(), v.number())})
async def record(ctx, r):
    return r

@query(args={"x": v.any()})
async def anything(ctx, x):
    return x

@query(args={"a": v.array(v.object({"b": v.string()}))})
async def deep(ctx, a):
    return a

@mutation(returns=v.string())
async def wrong_result(ctx):
    await ctx.db.insert("a", {})
    return 3

@query
async def returns_nothing(ctx):
    pass

@query(returns=v.null())
async def returns_null(ctx):
    pass

@query
async def unrun(ctx):
    return ctx.db.query("a").with_index("by_creation_time")

@mutation
async def unrun_mutation(ctx):
    return ctx.db.query("a")

@query
async def unset(ctx):
    return {"a": 1, "b": UNSET, "c": [{"d": UNSET}]}

@query
async def default(ctx):
    return "the default export"

@internal_query
async def inner(ctx):
    return "inner"

@action
async def calls_inner(ctx):
    return [await ctx.run_query(api.m.inner), await ctx.run_query(internal.m.inner)]

@query
async def short_reference(ctx):
    await ctx.run_query(api.m)

@mutation
async def a_mutation(ctx):
    return 1

@action
async def an_action(ctx):
    return 1

@query
async def calls_mutation(ctx):
    await ctx.run_mutation(api.m.a_mutation)

@query
async def down(ctx, depth: int = 1):
    return await ctx.run_query(api.m.down, depth=depth + 1)

@query
async def nested_arguments(ctx):
    try:
        await ctx.run_query(api.m.several, a=1)
    except Exception as error:
        return str(error)

def plain(ctx):
    pass

@mutation
async def insert(ctx, table: str):
    return await ctx.db.insert(table, {})

@mutation
async def remove(ctx, id: str):
    await ctx.db.delete(id)
"""


@pytest.fixture
async def store(tmp_path: Path):
    async with Running.open(tmp_path, {"m": APP, "inline": INLINE}) as running:
        yield running


async def refused(store: Running, path: str, kind: str = "query", **args: Any) -> str:
    with pytest.raises(FailedCall) as caught:
        await getattr(store, kind)(path, **args)
    return caught.value.failure.message


async def test_f1_functions_without_validators_take_any_arguments(store: Running):
    # The annotations of the public API take the place of a bare handler's silence.
    for path in ("bare", "unchecked"):
        assert await store.query(path, a=1, b=[None]) == {"a": 1, "b": [None]}


async def test_f2_no_arguments_declared_means_none_accepted(store: Running):
    assert await store.query("nothing") == "ok"
    text = await refused(store, "nothing", x=1)
    assert text.startswith(
        "ArgumentValidationError: Object contains extra field `x` that is not in the validator."
    )


async def test_f3_a_missing_argument_is_named(store: Running):
    text = await refused(store, "number")
    assert text.startswith(
        "ArgumentValidationError: Object is missing the required field `n`. Consider wrapping"
    )


async def test_f4_the_first_wrong_field_in_alphabetical_order_is_named(store: Running):
    assert "Path: .a" in await refused(store, "several", b=1, a="x", extra=1)
    assert "Path: .b" in await refused(store, "several", b=1, a=1, extra=1)
    assert "extra field `extra`" in await refused(store, "several", b="x", a=1, extra=1)


async def test_f5_optional_is_absent_not_null(store: Running):
    assert await store.query("several", a=1, b="x") == [1, "x", None]
    assert "Path: .c" in await refused(store, "several", a=1, b="x", c=None)
    assert await store.query("nullable", c=None) is None


async def test_f6_numbers_and_bigints_are_different_types(store: Running):
    assert await store.query("number", n=1.5) == 1.5
    assert await store.query("int64", n=Int64(1)) == 1
    for path, wrong in (("number", Int64(1)), ("int64", 1)):
        assert "ArgumentValidationError: Value does not match validator." in await refused(
            store, path, n=wrong
        )


async def test_f7_ids_are_of_a_table_whether_the_document_exists_or_not(store: Running):
    of_a, of_b = [await store.mutation("insert", table=name) for name in ("a", "b")]
    await store.mutation("remove", id=of_a)
    assert await store.query("ofA", id=of_a) == of_a
    assert (
        f'Found ID "{of_b}" from table `b`, which does not match the table name in validator '
        '`v.id("a")`.'
    ) in await refused(store, "ofA", id=of_b)
    assert "does not match validator" in await refused(store, "ofA", id="junk")


async def test_f8_an_id_needs_an_existing_table(store: Running):
    text = await refused(store, "ofNever", id=await store.mutation("insert", table="a"))
    assert 'which does not match the table name in validator `v.id("never_made")`.' in text


async def test_f9_a_union_fails_as_a_whole(store: Running):
    for good in ("x", 7, {"k": 1}):
        assert await store.query("union", x=good) == good
    text = await refused(store, "union", x={"k": "x"})
    assert text.count("does not match validator") == 1
    assert "Validator: v.union(v.string(), v.literal(7.0), v.object({k: v.float64()}))" in text


async def test_f10_records(store: Running):
    assert await store.query("record", r={}) == {}
    assert "Path: .r.values()" in await refused(store, "record", r={"a": "x"})


async def test_f11_any_takes_everything(store: Running):
    for value in (None, [None, {"a": [Int64(3), b"x"]}], {}):
        assert await store.query("anything", x=value) == value


async def test_f12_a_nested_mismatch_says_where(store: Running):
    assert "Path: .a[0].b" in await refused(store, "deep", a=[{"b": 1}])


async def test_f13_a_wrong_result_commits_nothing(store: Running):
    assert (await refused(store, "wrongResult", "mutation")).startswith("ReturnsValidationError: ")
    assert await store.reads(lambda ctx: ctx.db.query("a").collect()) == []


async def test_f14_nothing_is_null(store: Running):
    assert await store.query("returnsNothing") is None
    assert await store.query("returnsNull") is None


async def test_f15_a_query_that_was_not_run_is_no_result(store: Running):
    assert "Return value is a Query" in await refused(store, "unrun")
    assert "Return value is a Query" in await refused(store, "unrunMutation", "mutation")


async def test_f16_unset_members_vanish(store: Running):
    assert await store.query("unset") == {"a": 1, "c": [{}]}


async def test_f17_spellings_of_one_path(store: Running):
    assert await store.query("m:default") == "the default export"
    assert await store.query("m.js:default") == "the default export"
    outcome = await store.outcome("query", "m.js:nothing", {}, ANONYMOUS)
    assert outcome.value == b'"ok"'  # type: ignore[union-attr]
    assert all(".js:" in path for path in store.runner.app.functions)


async def test_f18_missing_and_internal_look_alike(store: Running):
    missing, internal = await refused(store, "nope"), await refused(store, "inner")
    assert missing == "Could not find public function for 'm:nope'.\n"
    assert internal == missing.replace("nope", "inner")


async def test_f19_the_wrong_entry_is_named(store: Running):
    kinds = {"query": "Query", "mutation": "Mutation", "action": "Action"}
    paths = {"query": "nothing", "mutation": "aMutation", "action": "anAction"}
    for entry in kinds:
        for kind, path in paths.items():
            if kind != entry:
                assert await refused(store, path, entry) == (
                    f"Trying to execute m.js:{path} as {kinds[entry]}, "
                    f"but it is defined as {kinds[kind]}.\n"
                )


async def test_f20_f21_actions_run_internal_functions_by_either_word(store: Running):
    assert await store.action("callsInner") == ["inner", "inner"]


async def test_f22_a_reference_needs_two_words(store: Running):
    text = await refused(store, "shortReference")
    assert "API path is expected to be of the form `api.moduleName.functionName`" in text


async def test_f23_a_query_cannot_call_a_mutation(store: Running):
    text = await refused(store, "callsMutation")
    assert "Cannot call a Mutation function from a Query function" in text


async def test_f24_nesting_is_bounded(store: Running):
    assert "Cross component call depth limit exceeded" in await refused(store, "down")


async def test_f25_nested_validators_throw_in_the_caller(store: Running):
    text = await store.query("nestedArguments")
    assert text.startswith("ArgumentValidationError: Object is missing the required field `b`")


async def test_f26_arguments_are_bounded(store: Running):
    text = await refused(store, "anything", x=["x" * 1_000_000] * 17)
    assert text.startswith("Arguments for m:anything are too large (actual: ")
    assert "limit: 16 MiB" in text


async def test_f27_no_arguments_are_an_empty_object(store: Running):
    outcome = await store.runner.query("m.js:nothing", {}, ANONYMOUS)
    assert outcome.value == b'"ok"'  # type: ignore[union-attr]


async def test_f28_the_listing_of_functions(store: Running):
    listed = {entry["identifier"]: entry for entry in store.runner.app.spec()}
    assert listed["m.js:inner"]["visibility"] == {"kind": "internal"}
    assert listed["m.js:aMutation"]["functionType"] == "Mutation"
    assert listed["m.js:number"]["args"] == {
        "type": "object",
        "value": {"n": {"fieldType": {"type": "number"}, "optional": False}},
    }
    assert listed["m.js:returnsNull"]["returns"] == {"type": "null"}
    assert listed["m.js:bare"]["args"] == listed["m.js:bare"]["returns"] == {"type": "any"}


async def test_f29_a_plain_function_cannot_be_run(store: Running):
    with pytest.raises(FailedCall, match="Did you forget to wrap it"):
        await store.query("plain", by=ADMIN)


# Actions.


async def test_f117_two_queries_of_an_action_may_see_different_states(store: Running):
    async def body(ctx: Any) -> list[int]:
        count = store.keep(counting)
        before = await ctx.run_query("inline:read", key=count)
        await store.mutation("insert", table="a")
        return [before, await ctx.run_query("inline:read", key=count)]

    async def counting(ctx: Any) -> int:
        return len(await ctx.db.query("a").collect())

    assert await store.acts(body) == [0, 1]


async def test_f118_f119_an_action_that_throws_keeps_its_commits_and_is_not_run_again(
    store: Running,
):
    runs = []

    async def body(ctx: Any) -> None:
        runs.append(1)
        await ctx.run_mutation("m:insert", table="a")
        raise ValueError("afterwards")

    with pytest.raises(FailedCall, match="Uncaught ValueError: afterwards"):
        await store.acts(body)
    assert len(runs) == 1
    assert len(await store.reads(lambda ctx: ctx.db.query("a").collect())) == 1


async def test_f120_the_data_of_an_error_arrives_in_the_action(store: Running):
    async def body(ctx: Any) -> Any:
        try:
            await ctx.run_mutation("inline:write", key=store.keep(failing))
        except Exception as error:
            return [type(error).__name__, error.data]  # type: ignore[attr-defined]

    async def failing(ctx: Any) -> None:
        raise convex_error({"code": 7, "n": Int64(3)})

    assert await store.acts(body) == ["ConvexError", {"code": 7, "n": 3}]


def convex_error(data: Any) -> Exception:
    from reactive_store.errors import ConvexError

    return ConvexError(data)


async def test_f121_the_identity_goes_along(store: Running):
    async def who(ctx: Any) -> Any:
        return (await ctx.auth.get_user_identity()).subject

    async def body(ctx: Any) -> list[Any]:
        key = store.keep(who)
        return [
            await who(ctx),
            await ctx.run_query("inline:read", key=key),
            await ctx.run_mutation("inline:write", key=key),
            await ctx.run_action("inline:act", key=key),
        ]

    assert await store.acts(body, by=user("ann")) == ["ann"] * 4


async def test_f122_what_each_kind_does_not_have(store: Running):
    async def names(ctx: Any) -> list[bool]:
        return [hasattr(ctx, name) for name in ("db", "run_action", "run_mutation")]

    assert await store.acts(names) == [False, True, True]
    assert await store.writes(names) == [True, False, True]
    assert await store.reads(names) == [True, False, False]


async def test_f123_an_action_goes_on_when_nobody_waits_for_it(store: Running):
    done = asyncio.Event()

    async def body(ctx: Any) -> None:
        await asyncio.sleep(0.01)
        await ctx.run_mutation("m:insert", table="a")
        done.set()

    # Who runs actions for clients shields them; leaving the wait must not reach the action.
    running = asyncio.ensure_future(store.acts(body))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(running), 0.001)
    await done.wait()
    await running
    assert len(await store.reads(lambda ctx: ctx.db.query("a").collect())) == 1


# Errors, logs, limits.


async def test_f175_f176_error_texts_in_development_and_production(store: Running):
    async def body(ctx: Any) -> None:
        raise convex_error({"why": "secret"})

    with pytest.raises(FailedCall) as caught:
        await store.reads(body)
    failure = caught.value.failure
    shown = client_message(failure, "00112233aabbccdd", redact=False)
    assert shown.startswith(
        "[Request ID: 00112233aabbccdd] Server Error\n"
        'Uncaught ConvexError: {"why":"secret"}\n    at read (functions/inline.py:'
    )
    hidden = client_message(failure, "00112233aabbccdd", redact=True)
    assert hidden == "[Request ID: 00112233aabbccdd] Server Error"
    assert failure.data == b'{"why":"secret"}'


async def test_f177_the_form_of_a_log_line(tmp_path: Path):
    app = '@query\nasync def say(ctx):\n    print("text", 1)\n'
    async with Running.open(tmp_path, app) as store:
        outcome = await store.outcome("query", "say", {}, ANONYMOUS)
        assert outcome.log_lines == ("[LOG] 'text' 1",)


async def test_f178_the_line_after_the_256th_is_the_last(tmp_path: Path):
    app = "@query\nasync def say(ctx):\n    for n in range(300):\n        print(n)\n"
    async with Running.open(tmp_path, app) as store:
        lines = (await store.outcome("query", "say", {}, ANONYMOUS)).log_lines
        assert len(lines) == 257
        assert lines[-1] == "[ERROR] Log overflow (maximum 256). Remaining log lines omitted."


SMALL = replace(
    Limits(),
    read_documents=10,
    read_bytes=2000,
    read_intervals=20,
    written_documents=10,
    written_bytes=1024 * 1024,
)


async def test_f179_each_limit_of_a_transaction(tmp_path: Path):
    async with Running.open(tmp_path, {"m": APP, "inline": INLINE}, limits=SMALL) as store:

        async def fill(ctx: Any) -> list[str]:
            return [await ctx.db.insert("a", {"n": n}) for n in range(10)]

        ids = [*await store.writes(fill), *await store.writes(fill)]

        async def gets(ctx: Any) -> None:
            for n in range(30):
                await ctx.db.query("a").with_index("by_creation_time", _creationTime=n).collect()

        async def long_documents(ctx: Any) -> None:
            for _ in range(3):
                await ctx.db.insert("b", {"text": "x" * 1000})

        async def too_many_bytes(ctx: Any) -> None:
            for _ in range(3):
                await ctx.db.insert("c", {"text": "x" * 500_000})

        async def dropped(ctx: Any) -> None:
            await ctx.db.query("a").filter(lambda f: f.eq(f.field("n"), -1)).collect()

        await store.writes(long_documents)
        for body, text in (
            (lambda ctx: ctx.db.query("a").collect(), "Too many documents read in a single"),
            (dropped, "Too many documents read in a single function execution (limit: 10)"),
            (lambda ctx: ctx.db.query("b").collect(), "Too many bytes read in a single"),
            (gets, "Too many reads in a single function execution (limit: 20)"),
        ):
            with pytest.raises(FailedCall) as caught:
                await store.reads(body)
            assert text in caught.value.failure.message
        for body, text in (
            (lambda ctx: _inserts(ctx, 11), "Too many writes in a single function execution"),
            (too_many_bytes, "Too many bytes written in a single function execution"),
        ):
            with pytest.raises(FailedCall) as caught:
                await store.writes(body)
            assert text in caught.value.failure.message
        assert len(ids) == 20


async def _inserts(ctx: Any, count: int) -> None:
    for _ in range(count):
        await ctx.db.insert("d", {})


async def test_f180_each_write_of_one_document_counts(tmp_path: Path):
    async with Running.open(tmp_path, {"m": APP, "inline": INLINE}, limits=SMALL) as store:

        async def body(ctx: Any) -> None:
            ident = await ctx.db.insert("a", {"n": 0})
            for n in range(1, 11):
                await ctx.db.patch(ident, {"n": n})

        with pytest.raises(FailedCall, match=r"Too many writes .* \(limit: 10\)"):
            await store.writes(body)


async def test_f181_computing_for_too_long_ends_a_query(store: Running):
    async def body(ctx: Any) -> None:
        while True:
            pass

    with pytest.raises(
        FailedCall, match=r"Function execution timed out \(maximum duration: 1s\): inline:read"
    ):
        await store.reads(body)


async def test_an_app_that_names_one_function_twice_is_refused(tmp_path: Path):
    with pytest.raises(BadRequest, match="are both"):
        write_app(
            tmp_path,
            "@query\nasync def a_b(ctx):\n    pass\n\n@query\nasync def aB(ctx):\n    pass\n",
        )
