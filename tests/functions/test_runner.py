"""The runner: commits, retries, exactly once, actions, reloads."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from reactive_store.auth.identity import ANONYMOUS
from reactive_store.errors import StoreFailed
from reactive_store.functions.outcome import Failure, Success
from reactive_store.functions.runner import SessionRequest
from reactive_store.limits import Limits
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.testing.faulty_persistence import FaultyPersistence
from tests.functions.running import ADMIN, FailedCall, Running, user, write_app

APP = """
attempts = {"n": 0}
release = asyncio.Event()
entered = asyncio.Event()

@query
async def count(ctx) -> int:
    found = await ctx.db.query("counters").first()
    return 0 if found is None else found["n"]

@query
async def total(ctx, table: str) -> int:
    return len(await ctx.db.query(table).collect())

@mutation
async def bump(ctx, wait: float = 0.0) -> int:
    found = await ctx.db.query("counters").first()
    attempts["n"] += 1
    print("attempt")
    if wait:
        await asyncio.sleep(wait)
    if found is None:
        await ctx.db.insert("counters", {"n": 1})
        return 1
    await ctx.db.patch(found["_id"], {"n": found["n"] + 1})
    return found["n"] + 1

@mutation
async def say(ctx, text: str) -> str:
    print(text)
    attempts["n"] += 1
    await ctx.db.insert("said", {"text": text})
    return text

@mutation
async def fail_first(ctx) -> str:
    attempts["n"] += 1
    await ctx.db.insert("said", {"text": "x"})
    if attempts["n"] == 1:
        raise ValueError("not yet")
    return "done"

@mutation
async def fail_always(ctx):
    attempts["n"] += 1
    await ctx.db.query("counters").collect()
    raise ValueError("always")

@mutation
async def large(ctx) -> list:
    attempts["n"] += 1
    await ctx.db.insert("said", {"text": "x"})
    return ["x" * 1000] * 3000

@mutation
async def look(ctx) -> int:
    return len(await ctx.db.query("said").collect())

@mutation
async def refuse_if_said(ctx):
    if await ctx.db.query("said").first() is not None:
        raise ConvexError("it was said")

@mutation
async def held(ctx) -> str:
    entered.set()
    await release.wait()
    return await ctx.run_mutation("m:version")

@mutation
async def version(ctx) -> str:
    return "old"

@internal_mutation
async def secret(ctx) -> str:
    return "told"

@action
async def twice(ctx) -> list:
    before = await ctx.run_query("m:count")
    await ctx.run_mutation("m:bump")
    return [before, await ctx.run_query("m:count")]

@action
async def bump_slowly(ctx) -> int:
    print("action")
    return await ctx.run_mutation("m:bump", wait=0.01)

@action
async def commit_then_fail(ctx):
    await ctx.run_mutation("m:say", text="kept")
    raise ValueError("afterwards")

@action
async def deeper(ctx, depth: int = 1) -> int:
    return await ctx.run_action("m:deeper", depth=depth + 1)

@internal_action
async def whisper(ctx) -> str:
    return await ctx.run_mutation("m:secret")

@action
async def shout(ctx) -> str:
    return (await ctx.run_action("m:whisper")).upper()

@action
async def environment(ctx) -> list:
    first = ctx.env.get("COLOUR")
    return [first, sorted(ctx.env), len(ctx.env)]

def plain(ctx):
    pass
"""


@pytest.fixture
async def store(tmp_path: Path):
    async with Running.open(tmp_path, APP) as running:
        yield running


def attempts(store: Running) -> int:
    namespace = store.runner.app.functions["m.js:bump"].handler.__globals__
    return int(namespace["attempts"]["n"])


# Racing mutations.


async def test_sixty_four_callers_of_one_counter_lose_nothing(store: Running):
    async def caller() -> None:
        for _ in range(100):
            await store.mutation("bump")

    await asyncio.gather(*(caller() for _ in range(64)))
    assert await store.query("count") == 6400
    assert store.runner.counters.failures == 0


async def test_handlers_that_wait_are_run_again_until_they_win(store: Running):
    await store.mutation("bump")
    results = await asyncio.gather(*(store.mutation("bump", wait=0.005) for _ in range(20)))
    assert sorted(results) == list(range(2, 22))
    assert await store.query("count") == 21
    assert store.database.statistics().conflicts > 0


async def test_a_mutation_that_always_loses_is_run_alone_in_the_end(store: Running):
    """A storm of quick commits on the same document never gives a slow handler a chance."""
    await store.mutation("bump")
    stop = asyncio.Event()

    async def storm() -> None:
        while not stop.is_set():
            await store.mutation("bump")

    stormers = [asyncio.create_task(storm()) for _ in range(3)]
    await asyncio.wait_for(store.mutation("bump", wait=0.01), 10)
    stop.set()
    await asyncio.gather(*stormers)
    assert store.database.statistics().conflicts >= Limits().conflict_retries + 1


async def test_log_lines_are_those_of_the_attempt_that_won(store: Running):
    await store.mutation("bump")
    outcomes = await asyncio.gather(
        *(store.outcome("mutation", "bump", {"wait": 0.005}, ANONYMOUS) for _ in range(10))
    )
    assert attempts(store) > 11
    assert {outcome.log_lines for outcome in outcomes} == {("[LOG] 'attempt'",)}


async def test_an_actions_lines_survive_the_attempts_of_its_mutations(store: Running):
    await store.mutation("bump")
    outcomes = await asyncio.gather(
        *(store.outcome("action", "bumpSlowly", {}, ANONYMOUS) for _ in range(5))
    )
    assert {outcome.log_lines for outcome in outcomes} == {("[LOG] 'action'", "[LOG] 'attempt'")}


async def test_exceptions_of_the_app_are_never_retried(store: Running):
    with pytest.raises(FailedCall, match="always"):
        await store.mutation("failAlways")
    assert attempts(store) == 1


async def test_a_mutation_without_writes_returns_what_is_durable(store: Running):
    outcome = await store.outcome("mutation", "look", {}, ANONYMOUS)
    assert isinstance(outcome, Success)
    assert outcome.ts == store.now


async def test_the_commit_timestamp_is_readable(store: Running):
    outcome = await store.outcome("mutation", "say", {"text": "a"}, ANONYMOUS)
    assert isinstance(outcome, Success)
    assert outcome.ts is not None
    before = await store.outcome("query", "total", {"table": "said"}, ANONYMOUS, at=outcome.ts - 1)
    after = await store.outcome("query", "total", {"table": "said"}, ANONYMOUS, at=outcome.ts)
    assert (before.value, after.value) == (b"0.0", b"1.0")  # type: ignore[union-attr]


# Durability.


async def test_a_failure_that_rests_on_pending_data_waits_for_it(tmp_path: Path):
    disk = FaultyPersistence(MemoryPersistence())
    async with Running.open(tmp_path, APP, persistence=disk) as store:
        await store.mutation("bump")
        opened = disk.hold()
        saying = asyncio.create_task(store.mutation("say", text="a"))
        await asyncio.sleep(0.01)
        refused = asyncio.create_task(store.outcome("mutation", "refuseIfSaid", {}, ANONYMOUS))
        looking = asyncio.create_task(store.mutation("look"))
        await asyncio.sleep(0.01)
        assert not refused.done()
        assert not looking.done()
        assert await store.query("total", table="said") == 0
        opened.set()
        assert (await refused).data == b'"it was said"'  # type: ignore[union-attr]
        assert await looking == 1
        assert await saying == "a"


async def test_a_failure_that_rests_on_lost_data_is_not_told(tmp_path: Path):
    disk = FaultyPersistence(MemoryPersistence())
    async with Running.open(tmp_path, APP, persistence=disk) as store:
        await store.mutation("bump")
        opened = disk.hold()
        disk.fail()
        saying = asyncio.create_task(store.mutation("say", text="a"))
        await asyncio.sleep(0.01)
        refused = asyncio.create_task(store.outcome("mutation", "refuseIfSaid", {}, ANONYMOUS))
        await asyncio.sleep(0.01)
        opened.set()
        with pytest.raises(StoreFailed):
            await refused
        with pytest.raises(StoreFailed):
            await saying
        assert await store.query("total", table="said") == 0


# Exactly once.

ONCE = SessionRequest("session", 7)


async def test_a_request_that_committed_is_answered_from_its_record(store: Running):
    first = await store.outcome("mutation", "say", {"text": "hi"}, ANONYMOUS, session=ONCE)
    await store.mutation("say", text="between")
    again = await store.outcome("mutation", "say", {"text": "hi"}, ANONYMOUS, session=ONCE)
    assert first == again
    assert first.log_lines == ("[LOG] 'hi'",)
    assert await store.query("total", table="said") == 2
    assert store.runner.counters.replays == 1


async def test_other_requests_and_sessions_are_their_own(store: Running):
    for session in (ONCE, SessionRequest("session", 8), SessionRequest("other", 7)):
        await store.mutation("say", text="hi", at=session)
    assert await store.query("total", table="said") == 3


async def test_two_at_once_with_one_request_have_one_effect(store: Running):
    outcomes = await asyncio.gather(
        *(
            store.outcome("mutation", "bump", {"wait": 0.005}, ANONYMOUS, session=ONCE)
            for _ in range(5)
        )
    )
    assert len(set(outcomes)) == 1
    assert await store.query("count") == 1


async def test_a_failed_request_is_not_recorded(store: Running):
    with pytest.raises(FailedCall, match="not yet"):
        await store.mutation("failFirst", at=ONCE)
    assert await store.mutation("failFirst", at=ONCE) == "done"
    assert await store.query("total", table="said") == 1


async def test_a_result_beyond_the_size_of_a_document_is_recorded(store: Running):
    first = await store.mutation("large", at=ONCE)
    assert len(first) == 3000
    assert await store.mutation("large", at=ONCE) == first
    assert attempts(store) == 1


async def test_a_record_survives_a_restart(tmp_path: Path):
    async with Running.open(tmp_path, APP, on_disk=True) as store:
        first = await store.outcome("mutation", "say", {"text": "hi"}, ANONYMOUS, session=ONCE)
    async with Running.open(tmp_path, APP, on_disk=True) as store:
        again = await store.outcome("mutation", "say", {"text": "hi"}, ANONYMOUS, session=ONCE)
        assert first == again
        assert await store.query("total", table="said") == 1
        assert attempts(store) == 0


async def test_a_replay_does_not_need_the_function_any_more(store: Running):
    await store.mutation("say", text="hi", at=ONCE)
    gone = write_app(store.root, APP.replace("async def say(", "async def say_it("))
    await store.backend.reload(gone)
    assert await store.mutation("say", text="hi", at=ONCE) == "hi"


# Actions.


async def test_an_action_sees_what_it_committed(store: Running):
    assert await store.action("twice") == [0, 1]


async def test_what_an_action_committed_stays_when_it_fails(store: Running):
    with pytest.raises(FailedCall, match="afterwards"):
        await store.action("commitThenFail")
    assert await store.query("total", table="said") == 1


async def test_actions_call_internal_functions(store: Running):
    assert await store.action("shout") == "TOLD"


async def test_actions_that_call_each_other_for_ever_fail(store: Running):
    with pytest.raises(FailedCall, match="Cross component call depth limit exceeded"):
        await store.action("deeper")


async def test_an_action_has_so_many_nested_calls_under_way_and_no_more(tmp_path: Path):
    app = """
@query
async def slow(ctx):
    await asyncio.sleep(0.002)

@action
async def many(ctx, count: int):
    done = await asyncio.gather(
        *(ctx.run_query("m:slow") for _ in range(count)), return_exceptions=True
    )
    await ctx.run_query("m:slow")  # there is room again
    return [getattr(each, "code", None) for each in done]
"""
    limits = replace(Limits(), action_operations=3)
    async with Running.open(tmp_path, app, limits=limits) as store:
        assert await store.action("many", count=3) == [None] * 3
        assert await store.action("many", count=4) == [None] * 3 + ["TooManyOperations"]


async def test_an_action_reads_the_newest_environment(store: Running):
    built_in = ["CONVEX_CLOUD_URL", "CONVEX_SITE_URL"]
    assert await store.action("environment") == [None, built_in, 2]
    await store.backend.environment.update({"COLOUR": "blue", "SIZE": "7"})
    assert await store.action("environment") == ["blue", sorted(["COLOUR", "SIZE", *built_in]), 4]


# Callers.


async def test_internal_functions_are_for_admins(store: Running):
    with pytest.raises(FailedCall, match="Could not find public function for 'm:secret'"):
        await store.mutation("secret")
    with pytest.raises(FailedCall, match="Could not find public function"):
        await store.mutation("secret", by=user("u"))
    assert await store.mutation("secret", by=ADMIN) == "told"


async def test_an_admin_is_told_why_a_function_is_not_there(store: Running):
    for path, text in (
        ("m:plain", "Did you forget to wrap it with `query` or `mutation`?"),
        ("m:none", 'Couldn\'t find "none" in module "m.js".'),
        ("none:none", "the app has no module 'none'"),
    ):
        with pytest.raises(FailedCall) as caught:
            await store.query(path, by=ADMIN)
        assert text in caught.value.failure.message
        with pytest.raises(FailedCall, match="Could not find public function"):
            await store.query(path)


async def test_any_kind_runs_what_there_is(store: Running):
    async def run(path: str, caller: object) -> object:
        return await store.outcome("any_kind", path, {}, caller)  # type: ignore[arg-type]

    assert (await run("count", ANONYMOUS)).value == b"0.0"  # type: ignore[attr-defined]
    assert (await run("bump", ANONYMOUS)).value == b"1.0"  # type: ignore[attr-defined]
    assert (await run("twice", ANONYMOUS)).value == b"[1.0,2.0]"  # type: ignore[attr-defined]
    assert (await run("secret", ADMIN)).value == b'"told"'  # type: ignore[attr-defined]
    for path in ("secret", "none"):
        missing = await run(path, ANONYMOUS)
        assert isinstance(missing, Failure)
        assert missing.message.startswith(f"Could not find function for 'm:{path}'.")


async def test_system_functions_are_for_admins(store: Running):
    path = next(iter(store.runner.system_functions))
    assert path.startswith("_system/")
    refused = await store.runner.query(path, {}, user("u"))
    assert isinstance(refused, Failure)
    assert refused.message == "You do not have permission to perform this operation.\n"


# Arguments and results.


async def test_arguments_that_are_no_object_are_refused(store: Running):
    """V91, V92."""
    outcome = await store.runner.query("m.js:count", b"[1]", ANONYMOUS)
    assert isinstance(outcome, Failure)
    assert outcome.message == (
        "ArgumentValidationError: Expected to receive an object as the function's argument. "
        "Instead received: [1.0]\n"
    )


async def test_arguments_that_are_no_values_are_refused(store: Running):
    """V91."""
    for args in (b'{"a": {"$odd": 1}}', b"{", {"a": {1, 2}}):
        outcome = await store.runner.query("m.js:count", args, ANONYMOUS)  # type: ignore[arg-type]
        assert isinstance(outcome, Failure)
        assert outcome.message.startswith("Invalid arguments for m:count: ")


async def test_arguments_and_results_have_limits(tmp_path: Path):
    """V38."""
    limits = replace(Limits(), arguments_bytes=2000, result_bytes=100_000)
    async with Running.open(tmp_path, APP, limits=limits) as store:
        with pytest.raises(FailedCall, match="Arguments for m:say are too large"):
            await store.mutation("say", text="x" * 2000)
        with pytest.raises(FailedCall, match="Function m:large return value is too large"):
            await store.mutation("large")
        assert await store.query("total", table="said") == 0


# Reload.


async def test_a_mutation_that_a_reload_overtakes_finishes_on_the_old_code(store: Running):
    namespace = store.runner.app.functions["m.js:held"].handler.__globals__
    running = asyncio.create_task(store.mutation("held"))
    await namespace["entered"].wait()
    await store.backend.reload(write_app(store.root, APP.replace('"old"', '"new"')))
    namespace["release"].set()
    assert await running == "old"
    assert await store.mutation("version") == "new"


async def test_a_mutation_that_a_schema_change_overtakes_runs_again_on_the_new_code(
    store: Running,
):
    namespace = store.runner.app.functions["m.js:held"].handler.__globals__
    held = APP.replace(
        'return await ctx.run_mutation("m:version")',
        'await ctx.db.insert("said", {}); return await ctx.run_mutation("m:version")',
    )
    await store.backend.reload(write_app(store.root, held))
    namespace = store.runner.app.functions["m.js:held"].handler.__globals__
    running = asyncio.create_task(store.mutation("held"))
    await namespace["entered"].wait()
    newer = write_app(
        store.root,
        held.replace('"old"', '"new"').replace("await release.wait()", "pass"),
        'schema = define_schema({"said": define_table(v.any()).index("by_text", ["text"])})',
    )
    await store.backend.reload(newer)
    namespace["release"].set()
    assert await running == "new"
    assert await store.query("total", table="said") == 1
