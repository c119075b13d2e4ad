"""What a call learns about itself, and nested calls with options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reactive_store import CallOptions, api, components, create_function_handle, internal
from reactive_store.auth.identity import Caller, RequestSource
from reactive_store.errors import BadRequest
from reactive_store.limits import Limits
from tests.functions.running import ADMIN, INLINE, FailedCall, Running

APP = """
@query
async def about(ctx):
    return await ctx.meta.get_function_metadata()

@internal_mutation
async def about_inner(ctx):
    return await ctx.meta.get_function_metadata()

@action
async def about_action(ctx):
    return [await ctx.meta.get_function_metadata(), await ctx.run_query("m:about"),
            await ctx.run_mutation("m:aboutInner")]

@query
async def names(ctx):
    return [note["name"] for note in await ctx.db.query("notes").collect()]

@mutation
async def add(ctx, name: str):
    return await ctx.db.insert("notes", {"name": name})

@query
async def nested_stale(ctx):
    return await ctx.run_query("m:names", CallOptions(use_stale_snapshot=True))

@action
async def source(ctx):
    mine = await ctx.meta.get_request_metadata()
    return [mine, await ctx.run_mutation("m:innerSource")]

@internal_mutation
async def inner_source(ctx):
    return await ctx.meta.get_request_metadata()

@query
async def who(ctx):
    identity = await ctx.auth.get_user_identity()
    return identity and identity.subject
"""


@pytest.fixture
async def store(tmp_path: Path):
    async with Running.open(tmp_path, {"m": APP, "inline": INLINE}) as running:
        yield running


# ctx.meta


async def test_a_function_knows_what_it_is(store: Running):
    query = {"name": "m:about", "component_path": "", "type": "query", "visibility": "public"}
    inner = {
        "name": "m:aboutInner", "component_path": "", "type": "mutation", "visibility": "internal",
    }  # fmt: skip
    action = {**query, "name": "m:aboutAction", "type": "action"}
    assert await store.query("about") == query
    assert await store.mutation("aboutInner", by=ADMIN) == inner
    assert await store.action("aboutAction") == [action, query, inner]


async def test_a_transaction_knows_what_it_has_used(store: Running):
    async def used(ctx: Any) -> Any:
        before = await ctx.meta.get_transaction_metrics()
        for _ in range(3):
            await ctx.db.insert("notes", {"name": "x"})
        await ctx.run_query("m:names")
        after = await ctx.meta.get_transaction_metrics()
        return [before, after]

    before, after = await store.writes(used)
    limits = Limits()
    nothing = {
        name: {"used": 0, "remaining": most}
        for name, most in {
            "bytes_read": limits.read_bytes,
            "bytes_written": limits.written_bytes,
            "database_queries": limits.read_intervals,
            "documents_read": limits.read_documents,
            "documents_written": limits.written_documents,
            "functions_scheduled": limits.scheduled_functions,
            "scheduled_function_args_bytes": limits.scheduled_bytes,
        }.items()
    }
    assert before == nothing
    assert after["documents_written"] == {"used": 3, "remaining": limits.written_documents - 3}
    assert after["documents_read"] == {"used": 3, "remaining": limits.read_documents - 3}
    assert after["database_queries"] == {"used": 1, "remaining": limits.read_intervals - 1}
    assert after["bytes_read"]["used"] > 0
    assert after["bytes_written"]["used"] > 0


async def test_the_snapshots_timestamp_is_that_of_the_last_commit(store: Running):
    await store.mutation("add", name="x")

    async def read(ctx: Any) -> Any:
        return ctx.meta.get_snapshot_ts()

    assert await store.reads(read) == store.now


async def test_an_action_has_no_transaction(store: Running):
    async def metrics(ctx: Any) -> Any:
        return await ctx.meta.get_transaction_metrics()

    async def timestamp(ctx: Any) -> Any:
        return ctx.meta.get_snapshot_ts()

    with pytest.raises(
        FailedCall,
        match=r"getTransactionMetrics\(\) can only be called from a query or mutation\. It is not "
        r"available in actions or outside of a Convex function\.",
    ):
        await store.acts(metrics)
    with pytest.raises(FailedCall, match="getSnapshotTs"):
        await store.acts(timestamp)


async def test_the_deployment_is_named(store: Running):
    async def deployment(ctx: Any) -> Any:
        return await ctx.meta.get_deployment_metadata()

    assert await store.reads(deployment) == {
        "name": "reactive-store", "region": None, "deployment_class": "s16",
    }  # fmt: skip


async def test_the_request_behind_a_call_is_known_to_what_it_calls(store: Running):
    request = RequestSource("192.0.2.7", "agent/1", "abc", "token")
    seen = {
        "ip": "192.0.2.7", "user_agent": "agent/1", "request_id": "abc",
        "scheduled_function_id": None, "auth_token": "token",
    }  # fmt: skip
    assert await store.action("source", by=Caller(None, request=request)) == [seen, seen]
    (nobody, _) = await store.action("source")
    assert (nobody["ip"], nobody["user_agent"], len(nobody["request_id"])) == (None, None, 16)

    async def in_a_query(ctx: Any) -> Any:
        return await ctx.meta.get_request_metadata()

    with pytest.raises(FailedCall, match="can only be called from a mutation or an action"):
        await store.reads(in_a_query)


def test_callers_are_equal_whatever_their_requests():
    assert Caller(None, request=RequestSource("a", None, "1")) == Caller(None)


async def test_a_forgotten_await_is_noticed(store: Running):
    async def forgets(ctx: Any) -> None:
        ctx.meta.get_function_metadata()

    with pytest.raises(FailedCall, match=r"`get_function_metadata\(…\)` was called without"):
        await store.reads(forgets)


# Options of nested calls


async def test_a_stale_query_sees_the_state_before_the_mutation_wrote(store: Running):
    """F116."""
    await store.mutation("add", name="old")

    async def compare(ctx: Any) -> Any:
        await ctx.db.insert("notes", {"name": "new"})
        stale = await ctx.run_query("m:names", CallOptions(use_stale_snapshot=True))
        return [stale, await ctx.run_query("m:names")]

    assert await store.writes(compare) == [["old"], ["old", "new"]]
    text = "`useStaleSnapshot` is only supported in mutations, not queries."
    with pytest.raises(FailedCall, match=text):
        await store.query("nestedStale")

    async def in_a_nested_query(ctx: Any) -> Any:
        return await ctx.run_query("m:nestedStale")

    with pytest.raises(FailedCall, match=text):
        await store.writes(in_a_nested_query)

    async def stale_mutation(ctx: Any) -> Any:
        await ctx.run_mutation("m:add", CallOptions(use_stale_snapshot=True), name="x")

    with pytest.raises(FailedCall, match="is for nested queries"):
        await store.writes(stale_mutation)


async def test_what_a_stale_query_reads_is_no_reason_to_run_again(store: Running):
    await store.mutation("add", name="old")
    runs: list[int] = []

    async def slow(ctx: Any) -> Any:
        runs.append(1)
        seen = await ctx.run_query("m:names", CallOptions(use_stale_snapshot=len(runs) < 9))
        if len(runs) == 1:
            await store.mutation("add", name="meanwhile")
        await ctx.db.insert("others", {"seen": len(seen)})
        return seen

    assert await store.writes(slow) == ["old"]
    assert len(runs) == 1


async def test_what_a_stale_query_reads_counts_for_the_limits_and_the_identity(store: Running):
    await store.mutation("add", name="old")

    async def counted(ctx: Any) -> Any:
        await ctx.run_query("m:names", CallOptions(use_stale_snapshot=True))
        await ctx.run_query("m:who", CallOptions(use_stale_snapshot=True))
        return (await ctx.meta.get_transaction_metrics()).documents_read.used

    assert await store.writes(counted) == 1


async def test_a_nested_call_may_be_given_less_to_spend(store: Running):
    for name in "abc":
        await store.mutation("add", name=name)

    async def narrow(ctx: Any) -> Any:
        await ctx.run_query("m:names")  # three documents are read before
        errors = []
        for limits in ({"documents_read": 2}, {"documents_read": 3}, {"database_queries": 0}):
            try:
                await ctx.run_query("m:names", CallOptions(transaction_limits=limits))
                errors.append(None)
            except BadRequest as error:
                errors.append(error.code)
        try:
            options = CallOptions(transaction_limits={"documents_written": 0})
            await ctx.run_mutation("m:add", options, name="x")
        except BadRequest as error:
            errors.append(error.code)
        await ctx.run_mutation("m:add", name="y")  # the limits are as before
        return errors

    assert await store.writes(narrow) == [
        "TooManyDocumentsRead", None, "TooManyReads", "TooManyWrites",
    ]  # fmt: skip
    assert await store.query("names") == ["a", "b", "c", "y"]


async def test_a_nested_call_is_never_given_more_than_there_is(store: Running):
    async def widen(ctx: Any) -> Any:
        options = CallOptions(transaction_limits={"documents_read": 10**9})
        await ctx.run_query("m:names", options)
        return (await ctx.meta.get_transaction_metrics()).documents_read.remaining

    assert await store.writes(widen) == Limits().read_documents


@pytest.mark.parametrize("limits", [{"nope": 1}, {"documents_read": -1}, {"bytes_read": True}])
def test_limits_that_cannot_be_are_refused(limits: dict[str, Any]):
    with pytest.raises(TypeError):
        CallOptions(transaction_limits=limits)


async def test_arguments_in_the_place_of_options_are_explained(store: Running):
    async def javascript(ctx: Any) -> Any:
        await ctx.run_mutation("m:add", {"name": "x"})

    with pytest.raises(FailedCall, match="pass arguments by name"):
        await store.writes(javascript)


# What else names a function


async def test_a_handle_is_text_that_stands_for_a_function(store: Running):
    """F186. The scheduler takes whatever `ctx.run_mutation` takes."""
    handle = create_function_handle(api.m.names)
    assert handle == "function://;m.js:names"
    assert create_function_handle(handle) == handle
    adding = create_function_handle(internal.m.add)

    async def keep(ctx: Any) -> Any:
        kept = await ctx.db.insert("handles", {"handle": handle})
        await ctx.run_mutation(adding, name="by handle")
        return await ctx.run_query((await ctx.db.get(kept))["handle"])

    assert await store.writes(keep) == ["by handle"]

    async def act(ctx: Any) -> Any:
        return await ctx.run_query(handle)

    assert await store.acts(act) == ["by handle"]

    async def missing(ctx: Any) -> Any:
        await ctx.run_query("function://;m.js:nope")

    with pytest.raises(FailedCall, match=r"Couldn't find \"nope\" in module \"m\.js\""):
        await store.reads(missing)


@pytest.mark.parametrize(
    "reference",
    [
        components.stripe.pay.charge,
        "_reference/childComponent/stripe/pay/charge",
        "function://3;pay.js:charge",
    ],
)
async def test_a_call_into_a_component_says_that_there_is_none(store: Running, reference: Any):
    async def call(ctx: Any) -> Any:
        with pytest.raises(BadRequest) as caught:
            await ctx.run_mutation(reference)
        codes.append(caught.value.code)
        raise caught.value

    codes: list[str] = []
    for run in (store.writes, store.acts):
        with pytest.raises(FailedCall, match="names a component, and this deployment has none"):
            await run(call)
    assert codes == ["ComponentNotFound"] * 2


async def test_a_client_that_asks_for_a_component_is_told_so(store: Running):
    with pytest.raises(FailedCall, match="names a component, and this deployment has none"):
        await store.query("_reference/childComponent/stripe:charge")
