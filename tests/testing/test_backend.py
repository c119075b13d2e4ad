"""TestBackend: calls, identities, live values, time, inline code; and how failures arrive."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import pytest

from reactive_store import ConvexError, api, define_schema, define_table, internal, v
from reactive_store.errors import BadRequest, StoreFailed
from reactive_store.functions.loader import load_app
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.testing import FaultyPersistence, FunctionError, TestBackend


@pytest.fixture
async def t(app_folder):
    async with TestBackend(functions=app_folder / "functions") as backend:
        yield backend


async def test_a_mutation_is_seen_by_the_next_query(t):
    note_id = await t.mutation("notes:add", text="milk")
    (note,) = await t.query("notes:listAll")
    assert (note["_id"], note["text"], note["at"]) == (note_id, "milk", t.now_ms)


async def test_functions_are_named_by_path_reference_or_object(t, app_folder):
    for function in ("notes:add", "notes.py:add", api.notes.add):
        await t.mutation(function, text="x")
    own = t.backend.runner.app.find("notes.js:add")
    await t.mutation(own, text="x")
    assert len(await t.query("notes:list_all")) == 4


async def test_an_argument_may_be_called_like_a_parameter(t):
    async with TestBackend(app=t.backend.runner.app) as other:
        assert await other.query("notes:listAll", text="function") == []


async def test_internal_functions_may_be_called(t):
    await t.action("notes:twice", text="bread")
    assert await t.mutation(internal.notes.forget_all) == 2
    assert await t.query(api.notes.list_all) == []


async def test_an_error_on_purpose_arrives_with_its_data(t):
    with pytest.raises(ConvexError) as caught:
        await t.mutation("notes:add", text="")
    assert caught.value.data == {"code": "empty"}


async def test_any_other_error_arrives_with_its_text_and_place(t):
    with pytest.raises(FunctionError, match="Uncaught ValueError: broken") as caught:
        await t.query("notes:fail", how="broken")
    assert "notes.py" in str(caught.value)


@pytest.mark.parametrize(
    ("path", "args", "text"),
    [
        ("notes:missing", {}, "[Ff]ind .*missing"),
        ("notes:listAll", {"text": 1}, "ArgumentValidationError"),
        ("notes:add", {"text": "x"}, "Trying to execute notes.js:add as Query"),
    ],
)
async def test_a_call_that_is_wrong_says_why(t, path, args, text):
    with pytest.raises(FunctionError, match=text):
        await t.query(path, **args)


async def test_a_path_that_cannot_be_read_is_refused(t):
    with pytest.raises(BadRequest, match="not a valid path"):
        await t.query("no path")


async def test_identities_share_the_data_and_nothing_else(t):
    """F194."""
    alice = t.with_identity(subject="alice", given_name="Alice", org_id="o1")
    assert await t.query("notes:who") is None
    assert await alice.query("notes:who") == {
        "subject": "alice",
        "issuer": "https://convex.test",
        "tokenIdentifier": "https://convex.test|alice",
        "givenName": "Alice",
        "org_id": "o1",
    }
    bob = alice.with_identity(token_identifier="https://x|bob")
    assert (await bob.query("notes:who"))["subject"] == "bob"
    await alice.mutation("notes:add", text="hers")
    assert len(await bob.query("notes:listAll")) == 1


async def test_a_subscription_gives_the_value_now_and_then_each_new_one(t):
    async with t.subscribe("notes:listAll", text="milk") as live:
        assert live.latest is None
        assert await live.next() == []
        await t.mutation("notes:add", text="milk")
        (note,) = await live.next()
        assert note["text"] == "milk"
        assert live.latest == [note]


async def test_a_subscription_is_silent_while_its_value_stays(t):
    async with t.subscribe("notes:listAll", text="milk") as live:
        await live.next()
        await t.mutation("notes:add", text="bread")
        with pytest.raises(TimeoutError, match="notes"):
            await live.next(timeout=0.02)
        await t.mutation("notes:add", text="milk")
        assert len(await live.next()) == 1


async def test_a_subscription_wakes_who_waits(t):
    async with t.subscribe(api.notes.list_all) as live:
        await live.next()
        waiting = asyncio.create_task(live.next())
        await asyncio.sleep(0)
        await t.mutation("notes:add", text="milk")
        assert len(await waiting) == 1


async def test_several_changes_at_once_are_one_new_value(t):
    async with t.subscribe("notes:listAll") as live:
        await live.next()
        for text in "abc":
            await t.mutation("notes:add", text=text)
        assert len(await live.next()) == 3


async def test_a_subscription_raises_what_its_query_raises_and_recovers(t):
    async with t.subscribe("notes:failWhenFull", most=1) as live:
        assert await live.next() == 0
        await t.mutation("notes:add", text="a")
        await t.mutation("notes:add", text="b")
        with pytest.raises(ConvexError) as caught:
            await live.next()
        assert caught.value.data == {"count": 2}
        await t.mutation(internal.notes.forget_all)
        assert await live.next() == 0


async def test_a_subscription_to_a_failing_query_gives_its_error(t):
    async with t.subscribe("notes:fail", how="broken") as live:
        with pytest.raises(FunctionError, match="Uncaught ValueError: broken"):
            await live.next()


async def test_a_closed_subscription_is_forgotten(t):
    async with t.subscribe("notes:listAll") as live:
        await live.next()
        assert t.backend.statistics().live_queries == 1
    assert t.backend.statistics().live_queries == 0


async def test_subscriptions_of_different_users_differ(t):
    alice, bob = t.with_identity(subject="alice"), t.with_identity(subject="bob")
    async with alice.subscribe("notes:who") as hers, bob.subscribe("notes:who") as his:
        assert (await hers.next())["subject"] == "alice"
        assert (await his.next())["subject"] == "bob"


async def test_inline_code_runs_in_one_transaction(t):
    async def count_after_two(ctx):
        for text in ("a", "b"):
            await ctx.db.insert("notes", {"text": text, "at": ctx.now})
        return {len(await ctx.db.query("notes").collect())}  # any object, not only a value

    assert await t.run(count_after_two) == {2}
    assert len(await t.query("notes:listAll")) == 2


async def test_inline_code_that_raises_writes_nothing(t):
    async def fail(ctx):
        await ctx.db.insert("notes", {"text": "x", "at": 0})
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await t.run(fail)
    assert await t.query("notes:listAll") == []


async def test_inline_code_runs_again_when_it_loses_a_race(t):
    runs = 0

    async def count(ctx):
        nonlocal runs
        runs += 1
        seen = len(await ctx.db.query("notes").collect())
        await ctx.db.insert("notes", {"text": "mine", "at": seen})
        if runs == 1:
            await t.mutation("notes:add", text="theirs")
        return seen

    assert await t.run(count) == 1
    assert runs == 2


async def test_the_clock_stands_still_until_it_is_moved(t):
    before = t.now_ms
    await t.mutation("notes:add", text="a")
    await asyncio.sleep(0.01)
    assert t.now_ms == before
    await t.advance(timedelta(hours=2))
    await t.mutation("notes:add", text="b")
    first, second = await t.query("notes:listAll")
    assert second["at"] - first["at"] == 2 * 3600 * 1000
    await t.finish_scheduled_functions()


async def test_a_month_goes_by_in_seconds(t):
    await t.mutation("notes:add", text="a")
    async with asyncio.timeout(30):
        await t.advance(timedelta(days=30))
    assert len(await t.query("notes:listAll")) == 1


async def test_rows_keep_the_order_of_creation_under_the_standing_clock(t):
    texts = [str(number) for number in range(50)]
    for text in texts:
        await t.mutation("notes:add", text=text)
    assert [note["text"] for note in await t.query("notes:listAll")] == texts


async def test_equal_seeds_give_equal_runs(app_folder):
    async def run(seed: int):
        async with TestBackend(app=app_folder, seed=seed) as t:
            note_id = await t.mutation("notes:add", text="x")
            return note_id, await t.query("notes:lucky")

    assert await run(1) == await run(1)
    assert await run(1) != await run(2)


async def test_what_functions_print_is_kept(t):
    await t.mutation("notes:add", text="milk")
    assert t.log_lines == ["[LOG] 'adding' 'milk'"]


async def test_a_schema_may_be_given(app_folder):
    schema = define_schema({"notes": define_table({"text": v.number()})})
    async with TestBackend(schema, app_folder / "functions") as t:
        with pytest.raises(FunctionError, match="does not match the schema"):
            await t.mutation("notes:add", text="x")


async def test_an_app_may_be_given_and_stays_the_callers(app_folder):
    app = load_app(app_folder)
    for _ in range(2):
        async with TestBackend(app=app) as t:
            await t.mutation("notes:add", text="x")
            assert len(await t.query("notes:listAll")) == 1
    app.close()


async def test_an_app_and_parts_of_one_exclude_each_other(app_folder):
    with pytest.raises(TypeError, match="not both"):
        TestBackend(app=app_folder, functions=app_folder / "functions")


async def test_an_app_that_cannot_be_loaded_is_an_error_on_entry(app_folder):
    (app_folder / "functions" / "notes.py").write_text("def broken(:\n")
    with pytest.raises(BadRequest, match="SyntaxError"):
        await TestBackend(app=app_folder).__aenter__()


async def test_a_failed_disk_fails_the_mutation_and_reads_go_on(app_folder):
    disk = FaultyPersistence(MemoryPersistence())
    async with TestBackend(app=app_folder, persistence=disk) as t:
        await t.mutation("notes:add", text="a")
        disk.fail()
        with pytest.raises(StoreFailed):
            await t.mutation("notes:add", text="b")
        assert [note["text"] for note in await t.query("notes:listAll")] == ["a"]


async def test_a_commit_is_visible_only_once_it_is_durable(app_folder):
    disk = FaultyPersistence(MemoryPersistence())
    async with TestBackend(app=app_folder, persistence=disk) as t:
        go_on = disk.hold()
        writing = asyncio.create_task(t.mutation("notes:add", text="a"))
        await asyncio.sleep(0.01)
        assert await t.query("notes:listAll") == []
        assert not writing.done()
        go_on.set()
        await writing
        assert len(await t.query("notes:listAll")) == 1


async def test_functions_of_the_test_run_as_functions_of_the_app(t):
    """F194. `fetch` is tests/testing/test_site.py's, scheduled functions are tested above."""

    async def add(ctx, text, times=1):
        for _ in range(times):
            await ctx.db.insert("notes", {"text": text, "at": ctx.now})
        logging.getLogger("app").info("added")
        return {"who": (await ctx.auth.get_user_identity()).subject, "times": times}

    async def texts(ctx):
        return [note["text"] for note in await ctx.db.query("notes").collect()]

    async def twice(ctx, text):
        first = await ctx.run_mutation("notes:add", text=text)
        return [first == await ctx.run_mutation("notes:add", text=text)]

    ann = t.with_identity(subject="ann")
    assert await ann.mutation(add, text="milk", times=2) == {"who": "ann", "times": 2}
    assert t.log_lines == ["[INFO] 'added'"]
    assert await t.action(twice, text="tea") == [False]
    assert await t.query(texts) == ["milk", "milk", "tea", "tea"]
    assert await ann.run(texts) == ["milk", "milk", "tea", "tea"]


async def test_a_function_of_the_test_raises_what_it_raises(t):
    class Own(Exception):
        pass

    async def write_and_fail(ctx):
        await ctx.db.insert("notes", {"text": "x", "at": 0})
        raise Own

    async def write_in_a_query(ctx):
        await ctx.run_mutation("notes:add", text="x")

    async def no_value(ctx):
        return {1, 2}

    with pytest.raises(Own):
        await t.mutation(write_and_fail)
    with pytest.raises(AttributeError, match="Cannot call a Mutation function from a Query"):
        await t.query(write_in_a_query)
    with pytest.raises(FunctionError, match="return value invalid"):
        await t.query(no_value)
    assert await t.query("notes:listAll") == []


async def test_where_a_request_comes_from_can_be_said(t):
    async def source(ctx):
        return await ctx.meta.get_request_metadata()

    here = t.with_request_metadata(ip="192.0.2.1", user_agent="agent", request_id="r")
    assert await here.mutation(source) == {
        "ip": "192.0.2.1", "user_agent": "agent", "request_id": "r",
        "scheduled_function_id": None, "auth_token": None,
    }  # fmt: skip
