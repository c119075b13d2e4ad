"""What each kind of function finds on its ctx."""

from __future__ import annotations

from pathlib import Path

import pytest

from reactive_store.functions.context import ActionCtx, MutationCtx, QueryCtx
from tests.functions.running import FailedCall, Running, user

APP = """
def parts(ctx):
    return [name for name in (
        "db", "auth", "env", "now", "random", "run_query", "run_mutation", "run_action"
    ) if hasattr(ctx, name)]

@query
async def of_query(ctx) -> list:
    return parts(ctx)

@mutation
async def of_mutation(ctx) -> list:
    return parts(ctx)

@action
async def of_action(ctx) -> list:
    return parts(ctx)

@query
async def query_mutates(ctx):
    await ctx.run_mutation("m:ofMutation")

@query
async def query_acts(ctx):
    await ctx.run_action("m:ofAction")

@mutation
async def mutation_acts(ctx):
    await ctx.run_action("m:ofAction")

@action
async def action_reads(ctx):
    await ctx.db.get("x")

@query
async def query_writes(ctx):
    await ctx.db.insert("t", {})

@query
async def unknown(ctx):
    ctx.databse

@query
async def query_as_mutation(ctx):
    await ctx.run_query("m:ofMutation")

@action
async def times(ctx) -> list:
    first = ctx.now
    await asyncio.sleep(0.002)
    return [first, ctx.now, ctx.random is ctx.random]

@action
async def who(ctx):
    identity = await ctx.auth.get_user_identity()
    return [identity and identity.subject, await ctx.run_query("m:whoQuery")]

@query
async def who_query(ctx):
    identity = await ctx.auth.get_user_identity()
    return identity and identity.subject

@query
async def reference_by_name(ctx, ref: int = 0, reference: int = 0) -> list:
    if ref:
        return [ref, reference]
    return await ctx.run_query("m:referenceByName", ref=1, reference=2)
"""


@pytest.fixture
async def store(tmp_path: Path):
    async with Running.open(tmp_path, APP) as running:
        yield running


async def test_each_kind_has_its_parts(store: Running):
    shared = ["db", "auth", "env", "now", "random", "run_query"]
    assert await store.query("ofQuery") == shared
    assert await store.mutation("ofMutation") == [*shared, "run_mutation"]
    assert await store.action("ofAction") == [*shared[1:], "run_mutation", "run_action"]


@pytest.mark.parametrize(
    ("kind", "path", "text"),
    [
        ("query", "queryMutates", "Cannot call a Mutation function from a Query function"),
        ("query", "queryActs", "Cannot call an Action function from a Query function"),
        ("mutation", "mutationActs", "Cannot call an Action function from a Mutation function"),
        ("action", "actionReads", "An action has no ctx.db: read and write through ctx.run_query"),
        ("query", "queryWrites", "'DatabaseReader' object has no attribute 'insert'"),
        ("query", "unknown", "'QueryCtx' object has no attribute 'databse'"),
        (
            "query",
            "queryAsMutation",
            "Trying to execute m.js:ofMutation as Query, but it is defined as Mutation.",
        ),
    ],
)
async def test_what_is_not_there_says_why(store: Running, kind: str, path: str, text: str):
    with pytest.raises(FailedCall) as caught:
        await getattr(store, kind)(path)
    assert text in caught.value.failure.message


async def test_the_clock_of_an_action_goes_on(store: Running):
    first, second, same = await store.action("times")
    assert second > first
    assert same


async def test_the_identity_goes_along_into_nested_calls(store: Running):
    assert await store.action("who", by=user("ann")) == ["ann", "ann"]
    assert await store.action("who") == [None, None]


async def test_arguments_may_have_the_names_of_our_parameters(store: Running):
    assert await store.query("referenceByName") == [1, 2]


def test_an_app_makes_contexts_of_its_own():
    class UserCtx(MutationCtx):
        user: str

    class OtherCtx(ActionCtx): ...

    ctx = object.__new__(MutationCtx)
    for name in ("db", "auth", "env", "now", "_make_random", "_random", "_calls"):
        object.__setattr__(ctx, name, name)
    extended = UserCtx.extend(ctx, user="ann")
    assert (extended.user, extended.db, extended.now) == ("ann", "db", "now")
    again = extended.replace(db="other")
    assert type(again) is UserCtx
    assert (again.user, again.db, extended.db) == ("ann", "other", "db")
    with pytest.raises(TypeError, match="UserCtx needs 'user'"):
        UserCtx.extend(ctx)
    with pytest.raises(TypeError, match="UserCtx has no part 'usr'"):
        UserCtx.extend(ctx, user="ann", usr="bob")
    with pytest.raises(TypeError, match="has no part 'user'"):
        ctx.replace(user="ann")
    with pytest.raises(TypeError, match="cannot be made of a MutationCtx: derive it from"):
        OtherCtx.extend(ctx)
    with pytest.raises(AttributeError, match="Cannot call an Action function from a Mutation"):
        extended.run_action  # type: ignore[attr-defined]  # noqa: B018
    # A context without places for them leaves further parts behind.
    assert not hasattr(QueryCtx.extend(extended), "user")
