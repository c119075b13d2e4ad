"""Live queries over the real engine: shared, precise, consistent at a timestamp, and forgotten."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from reactive_store.auth.identity import ANONYMOUS
from reactive_store.errors import OutOfRetention
from reactive_store.functions.outcome import Failure, Success
from reactive_store.values.wire import encode_normalized, loads
from tests.functions.running import ADMIN, Running, Watched, user, write_app

APP = """
runs = {"n": 0}
gates = {}

@query
async def listing(ctx, room: str) -> list:
    found = await ctx.db.query("messages").with_index("by_room", room=room).collect()
    return [m["text"] for m in found]

@query
async def starred(ctx) -> list:
    found = await ctx.db.query("messages").filter(lambda f: f.eq(f.field("star"), True)).collect()
    return [m["text"] for m in found]

@query
async def mine(ctx):
    identity = await ctx.auth.get_user_identity()
    return None if identity is None else identity.subject

@query
async def personal_when_asked(ctx):
    flag = await ctx.db.query("flags").first()
    if flag is not None and flag["personal"]:
        return (await ctx.auth.get_user_identity()).subject
    return "everybody"

@query
async def slow(ctx, gate: str):
    before = len(await ctx.db.query("messages").collect())
    await gates[gate].wait()
    return [before, len(await ctx.db.query("messages").collect())]

@query
async def page(ctx, pagination_opts: PaginationOpts):
    return await ctx.db.query("messages").paginate(pagination_opts)

@query
async def broken(ctx):
    runs["n"] += 1
    if runs["n"] < 3:
        raise ValueError(f"attempt {runs['n']}")
    return runs["n"]

@query
async def chance(ctx):
    return ctx.random.random()

@query
async def said(ctx):
    print("hello")
    await ctx.db.query("messages").collect()
    return 1

@mutation
async def send(ctx, room: str, text: str, star: bool = False) -> str:
    return await ctx.db.insert("messages", {"room": room, "text": text, "star": star})

@mutation
async def edit(ctx, id: str, text: str):
    await ctx.db.patch(id, {"text": text})

@mutation
async def remove(ctx, id: str):
    await ctx.db.delete(id)

@mutation
async def flag(ctx, personal: bool):
    found = await ctx.db.query("flags").first()
    if found is None:
        await ctx.db.insert("flags", {"personal": personal})
    else:
        await ctx.db.patch(found["_id"], {"personal": personal})
"""
SCHEMA = """
schema = define_schema({
    "messages": define_table(v.any()).index("by_room", ["room"]),
    "flags": define_table({"personal": v.boolean()}),
})
"""


@pytest.fixture
async def store(tmp_path: Path):
    async with Running.open(tmp_path, APP, schema=SCHEMA) as running:
        yield running


def gate(store: Running, name: str) -> asyncio.Event:
    handler = store.runner.app.functions["m.js:slow"].handler
    event: asyncio.Event = handler.__globals__["gates"].setdefault(name, asyncio.Event())
    return event


async def test_a_thousand_watchers_of_one_question_cost_one_run_per_change(store: Running):
    await store.mutation("send", room="a", text="one")
    watches = [store.watch("listing", room="a", by=user(f"u{n}")) for n in range(1000)]
    assert await asyncio.gather(*(w.read() for w in watches)) == [["one"]] * 1000
    assert store.live.counters.runs == 1
    assert len(store.live) == 1
    assert store.subscriptions == 1
    await store.mutation("send", room="a", text="two")
    assert [w.told for w in watches] == [1] * 1000
    results = [await w.result() for w in watches]
    assert store.live.counters.runs == 2
    assert all(result is results[0] for result in results)


async def test_a_watcher_is_told_once_per_answer_that_ended(store: Running):
    watch = store.watch("listing", room="a")
    assert watch.told == 0
    await store.mutation("send", room="a", text="before the first answer")
    assert watch.told == 0
    await watch.read()
    await store.mutation("send", room="a", text="one")
    await store.mutation("send", room="a", text="two")
    assert watch.told == 1
    await watch.read()
    await store.mutation("send", room="a", text="three")
    assert watch.told == 2


async def test_an_answer_is_at_hand_once_somebody_has_asked_and_until_it_changes(store: Running):
    first, second = store.watch("listing", room="a"), store.watch("listing", room="a")
    assert first.watch.ready(store.now) is None
    result = await first.result()
    assert second.watch.ready(store.now) is result
    await store.mutation("send", room="a", text="one")
    assert (first.told, second.told) == (1, 1)  # taking what is at hand counts as asking
    assert second.watch.ready(store.now) is None
    second.close()
    assert second.watch.ready(store.now) is None


async def test_nobody_is_handed_the_answer_to_somebody_else(store: Running):
    alice, bob = store.watch("mine", by=user("alice")), store.watch("mine", by=user("bob"))
    await alice.result()
    assert bob.watch.ready(store.now) is None
    assert await bob.read() == "bob"
    assert alice.watch.ready(store.now) is not bob.watch.ready(store.now) is not None


async def test_a_change_elsewhere_is_not_told(store: Running):
    watch = store.watch("listing", room="a")
    await watch.read()
    await store.mutation("send", room="b", text="elsewhere")
    assert watch.told == 0


async def test_documents_that_a_filter_drops_do_not_make_it_run_again(store: Running):
    first = await store.mutation("send", room="a", text="plain")
    watch = store.watch("starred")
    assert await watch.read() == []
    await store.mutation("edit", id=first, text="still plain")
    await store.mutation("send", room="a", text="plain too")
    assert (watch.told, store.live.counters.runs) == (0, 1)
    assert store.live.counters.equal == 0
    await store.mutation("send", room="a", text="shiny", star=True)
    assert watch.told == 1
    assert await watch.read() == ["shiny"]


async def test_queries_that_look_at_the_identity_are_not_shared(store: Running):
    alice, bob, also_alice = (store.watch("mine", by=user(n)) for n in ("alice", "bob", "alice"))
    assert [await w.read() for w in (alice, bob, also_alice)] == ["alice", "bob", "alice"]
    assert len(store.live) == 2
    nobody = store.watch("mine")
    assert await nobody.read() is None


async def test_a_crowd_with_identities_of_their_own_is_parted_after_the_first_run(store: Running):
    watches = [store.watch("mine", by=user(f"u{n}")) for n in range(50)]
    assert await asyncio.gather(*(w.read() for w in watches)) == [f"u{n}" for n in range(50)]
    assert (len(store.live), store.live.counters.runs) == (50, 50)


async def test_a_shared_query_that_begins_to_look_at_the_identity_is_parted(store: Running):
    await store.mutation("flag", personal=False)
    alice, bob = (store.watch("personalWhenAsked", by=user(n)) for n in ("alice", "bob"))
    assert [await alice.read(), await bob.read()] == ["everybody", "everybody"]
    assert len(store.live) == 1
    await store.mutation("flag", personal=True)
    assert [await bob.read(), await alice.read()] == ["bob", "alice"]
    carol = store.watch("personalWhenAsked", by=user("carol"))
    assert await carol.read() == "carol"
    assert len(store.live) == 3


async def test_queries_that_stop_looking_at_the_identity_are_joined_again(store: Running):
    await store.mutation("flag", personal=True)
    watches = [store.watch("personalWhenAsked", by=user(f"u{n}")) for n in range(10)]
    assert [await w.read() for w in watches] == [f"u{n}" for n in range(10)]
    assert len(store.live) == 10
    await store.mutation("flag", personal=False)
    assert [await w.read() for w in watches] == ["everybody"] * 10
    assert len(store.live) == 1
    assert store.subscriptions == 1
    await store.mutation("flag", personal=True)
    assert [w.told for w in watches] == [2] * 10
    assert [await w.read() for w in watches] == [f"u{n}" for n in range(10)]


async def test_an_answer_of_the_past_is_not_somebody_elses(store: Running):
    """The shared query has moved on to a time when nobody's identity mattered."""
    await store.mutation("flag", personal=False)
    alice, bob = (store.watch("personalWhenAsked", by=user(n)) for n in ("alice", "bob"))
    await alice.read()
    await bob.read()
    await store.mutation("flag", personal=True)
    private = store.now
    await store.mutation("flag", personal=False)
    assert await alice.read() == "everybody"
    assert await bob.read(private) == "bob"


async def test_who_reads_the_past_is_told_that_it_is_over(store: Running):
    """A session that works on an older timestamp while another one has run the query again."""
    ahead, behind = (store.watch("listing", room="a", by=user(n)) for n in ("x", "y"))
    await ahead.read()
    await behind.read()
    await store.mutation("send", room="a", text="one")
    old = store.now
    await store.mutation("send", room="a", text="two")
    assert await ahead.read() == ["one", "two"]
    assert behind.told == 1
    assert await behind.read(old) == ["one"]
    assert behind.told == 2
    assert await behind.read() == ["one", "two"]


async def test_admins_and_others_do_not_share(store: Running):
    one, two = store.watch("listing", room="a"), store.watch("listing", room="a", by=ADMIN)
    await one.read()
    await two.read()
    assert len(store.live) == 2


async def test_equal_answers_keep_their_fingerprint(store: Running):
    one = await store.mutation("send", room="a", text="one")
    watch = store.watch("listing", room="a")
    before = await watch.result()
    await store.mutation("edit", id=one, text="two")
    await store.mutation("edit", id=one, text="one")
    after = await watch.result()
    assert after.fingerprint == before.fingerprint
    assert (store.live.counters.reruns, store.live.counters.equal) == (1, 1)
    await store.mutation("edit", id=one, text="three")
    assert (await watch.result()).fingerprint != before.fingerprint


async def test_the_answer_carries_log_lines_unless_redacted(tmp_path: Path):
    for redact, lines in ((False, b'"logLines":["[LOG] \'hello\'"]'), (True, b'"logLines":[]')):
        async with Running.open(tmp_path / str(redact), APP, schema=SCHEMA, redact=redact) as store:
            result = await store.watch("said").result()
            assert result.modification.startswith(b'"value":1.0,')
            assert lines in result.modification
            assert result.modification.endswith(b'"journal":null}')


async def test_a_slow_query_answers_for_its_timestamp(store: Running):
    """Commits that happen while a handler waits are not in its answer, and end it."""
    await store.mutation("send", room="a", text="one")
    watch = store.watch("slow", gate="g")
    event = gate(store, "g")
    at = store.now
    answer = asyncio.create_task(watch.read(at))
    await asyncio.sleep(0.01)
    await store.mutation("send", room="a", text="two")
    assert watch.told == 0
    event.set()
    assert await answer == [1, 1]
    assert watch.told == 1
    assert await watch.read() == [2, 2]


async def test_watchers_of_a_running_query_wait_for_that_run(store: Running):
    gate(store, "g")
    watches = [store.watch("slow", gate="g") for _ in range(5)]
    answers = [asyncio.create_task(w.read(store.now)) for w in watches]
    await asyncio.sleep(0.01)
    gate(store, "g").set()
    assert await asyncio.gather(*answers) == [[0, 0]] * 5
    assert store.live.counters.runs == 1


async def test_when_the_one_who_runs_it_gives_up_another_one_runs_it(store: Running):
    gate(store, "g")
    first, second = store.watch("slow", gate="g"), store.watch("slow", gate="g")
    running, waiting = (asyncio.create_task(w.read(store.now)) for w in (first, second))
    await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.sleep(0.01)
    gate(store, "g").set()
    assert await waiting == [0, 0]
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_closing_a_watch_while_its_query_runs_leaves_nothing(store: Running):
    gate(store, "g")
    watch = store.watch("slow", gate="g")
    answer = asyncio.create_task(watch.result(store.now))
    await asyncio.sleep(0.01)
    watch.close()
    gate(store, "g").set()
    await answer
    assert len(store.live) == 0
    assert store.subscriptions == 0
    assert store.live._filed == {}
    await store.mutation("send", room="a", text="one")
    assert watch.told == 0


async def test_closing_the_last_watch_frees_everything(store: Running):
    watches = [
        store.watch(path, by=user(f"u{n}"), **args)
        for n in range(20)
        for path, args in (
            ("listing", {"room": f"r{n % 3}"}), ("mine", {}), ("starred", {}),
            ("page", {"paginationOpts": {"numItems": 2, "cursor": None}}),
        )
    ]  # fmt: skip
    for watch in watches:
        await watch.read()
    await store.mutation("send", room="r1", text="one")
    for watch in watches:
        await watch.read()
    for watch in watches:
        watch.close()
        watch.close()
    assert len(store.live) == 0
    assert store.live._filed == {}
    assert store.subscriptions == 0


async def test_closing_one_watch_leaves_the_others_their_answer(store: Running):
    one, two = store.watch("listing", room="a"), store.watch("listing", room="a")
    await one.read()
    await two.read()
    one.close()
    await store.mutation("send", room="a", text="x")
    assert (one.told, two.told) == (0, 1)
    assert await two.read() == ["x"]


# Pages.


def first_page(store: Running, items: int, by: Any = None) -> Watched:
    options = {"numItems": items, "cursor": None}
    return store.watch("page", paginationOpts=options, by=by or user("u"))


def texts(page: Any) -> list[str]:
    return [message["text"] for message in page["page"]]


async def test_a_page_keeps_its_end(store: Running):
    ids = [await store.mutation("send", room="a", text=str(n)) for n in range(4)]
    watch = first_page(store, 2)
    assert texts(await watch.read()) == ["0", "1"]
    await store.mutation("send", room="a", text="after the end")
    assert watch.told == 0
    await store.mutation("remove", id=ids[0])
    assert texts(await watch.read()) == ["1"]
    await store.mutation("remove", id=ids[1])
    assert texts(await watch.read()) == []


async def test_a_newcomer_gets_a_page_of_the_size_it_asks_for(store: Running):
    ids = [await store.mutation("send", room="a", text=str(n)) for n in range(4)]
    early = first_page(store, 2)
    await early.read()
    await store.mutation("remove", id=ids[0])
    late = first_page(store, 2)
    assert texts(await early.read()) == ["1"]
    assert texts(await late.read()) == ["1", "2"]
    assert len(store.live) == 2


async def test_watchers_of_the_same_page_share_it_whenever_they_came(store: Running):
    for n in range(4):
        await store.mutation("send", room="a", text=str(n))
    watches = []
    for n in range(20):
        watches.append(first_page(store, 2, user(f"u{n}")))
        assert texts(await watches[-1].read()) == ["0", "1"]
    assert len(store.live) == 1
    assert store.subscriptions == 1
    runs = store.live.counters.runs
    one = (await store.query("page", paginationOpts={"numItems": 1, "cursor": None}))["page"][0]
    await store.mutation("edit", id=one["_id"], text="changed")
    assert [texts(await w.read()) for w in watches] == [["changed", "1"]] * 20
    assert store.live.counters.runs == runs + 1


async def test_a_watch_with_a_journal_takes_up_the_page_where_it_ended(store: Running):
    ids = [await store.mutation("send", room="a", text=str(n)) for n in range(4)]
    before = await first_page(store, 2).result()
    await store.mutation("remove", id=ids[0])
    again = Watched(
        store,
        "page",
        {"paginationOpts": {"numItems": 2, "cursor": None}},
        user("u"),
        before.journal,
    )
    assert texts(await again.read()) == ["1"]


# Failures.


async def test_a_failed_answer_is_told_and_ends_like_any_other(store: Running):
    watch = store.watch("listing", room=3)
    result = await watch.result()
    assert result.failed
    assert b"ArgumentValidationError" in result.modification
    assert result.modification.startswith(b'"errorMessage":"[Request ID: ')


async def test_newcomers_are_not_given_a_failure(store: Running):
    """F106."""
    one = store.watch("broken")
    assert (await one.result()).failed
    two = store.watch("broken")
    assert (await two.result()).failed
    assert b"attempt 2" in two.last.modification
    three, four = store.watch("broken"), store.watch("broken")
    assert await three.read() == 3
    assert await four.read() == 3
    assert one.told == 0
    for watch in (one, two, three, four):
        watch.close()
    assert store.live._filed == {}


async def test_a_redacted_failure_says_nothing(tmp_path: Path):
    async with Running.open(tmp_path, APP, schema=SCHEMA, redact=True) as store:
        result = await store.watch("broken").result()
        assert b"attempt" not in result.modification
        assert b'] Server Error"' in result.modification


async def test_a_timestamp_that_is_too_old_is_refused_and_nothing_hangs(store: Running):
    await store.mutation("send", room="a", text="one")
    watch = store.watch("listing", room="a")
    await store.database.forget_before(store.now)
    with pytest.raises(OutOfRetention):
        await watch.result(store.now - 1)
    assert await watch.read() == ["one"]


# Reload.


async def test_a_reload_ends_every_answer_even_when_no_data_changes(store: Running):
    watch, other = store.watch("mine", by=user("ann")), store.watch("chance")
    await watch.read()
    before = await other.read()
    at = store.now
    app = write_app(store.root, APP.replace("identity.subject", "identity.subject.upper()"), SCHEMA)
    await store.backend.reload(app)
    assert (watch.told, other.told) == (1, 1)
    assert await watch.read(at) == "ANN"
    assert await other.read(at) != before
    assert (watch.told, other.told) == (1, 1)


async def test_a_run_that_a_reload_overtakes_is_run_again_on_the_new_code(store: Running):
    watch = store.watch("slow", gate="g")
    old_gate = gate(store, "g")
    answer = asyncio.create_task(watch.read(store.now))
    await asyncio.sleep(0.01)
    app = write_app(store.root, APP.replace("return [before", "return ['new', before"), SCHEMA)
    await store.backend.reload(app)
    gate(store, "g").set()
    old_gate.set()
    assert await answer == ["new", 0, 0]
    assert watch.told == 0


async def test_chance_is_the_same_for_all_watchers(store: Running):
    one, two = store.watch("chance"), store.watch("chance", by=user("x"))
    assert await one.read() == await two.read()


async def test_time_does_not_end_an_answer(store: Running):
    watch = store.watch("chance")
    await watch.read()
    await store.mutation("send", room="a", text="unrelated")
    await asyncio.sleep(0.02)
    assert watch.told == 0


async def test_whatever_happens_the_answers_are_those_of_a_naive_rerun(store: Running):
    """Random commits and reads; every watch that was not told reads the same as a fresh query."""
    import random

    dice = random.Random(7)
    watches = [store.watch("listing", room=f"r{n % 4}", by=user(f"u{n}")) for n in range(12)]
    watches += [store.watch("starred") for _ in range(3)]
    told = [0] * len(watches)
    held: list[Any] = [await w.read() for w in watches]
    ids: list[str] = []
    for _ in range(150):
        roll = dice.random()
        if roll < 0.5 or not ids:
            ids.append(
                await store.mutation(
                    "send", room=f"r{dice.randrange(4)}", text=str(roll), star=roll < 0.1
                )
            )
        elif roll < 0.8:
            await store.mutation("edit", id=dice.choice(ids), text=str(roll))
        else:
            await store.mutation("remove", id=ids.pop(dice.randrange(len(ids))))
        for position, watch in enumerate(watches):
            if watch.told > told[position] and dice.random() < 0.5:
                told[position] = watch.told
                held[position] = await watch.read()
        position = dice.randrange(len(watches))
        if watches[position].told == told[position]:
            if position < 12:
                assert held[position] == await store.query("listing", room=f"r{position % 4}")
            else:
                assert held[position] == await store.query("starred")


async def asked_once(store: Running, path: str, by: Any = ANONYMOUS, **args: Any) -> Any:
    outcome = await store.live.query(f"m.js:{path}", encode_normalized(args), by)
    assert isinstance(outcome, Success)
    return loads(outcome.value)


async def test_a_question_somebody_watches_is_answered_without_running(store: Running):
    await store.mutation("send", room="a", text="one")
    watch = store.watch("listing", room="a")
    await watch.read()
    runs = store.backend.runner.counters.queries
    assert await asked_once(store, "listing", room="a") == ["one"]
    assert await asked_once(store, "listing", by=user("alice"), room="a") == ["one"]
    assert store.backend.runner.counters.queries == runs
    assert store.live.counters.shared == 2


async def test_an_answer_that_has_ended_is_not_given_out(store: Running):
    watch = store.watch("listing", room="a")
    await watch.read()
    await store.mutation("send", room="a", text="new")
    assert await asked_once(store, "listing", room="a") == ["new"]
    assert store.live.counters.shared == 0


async def test_answers_that_depend_on_the_identity_are_given_to_that_identity_only(store: Running):
    watch = store.watch("mine", by=user("alice"))
    await watch.read()
    assert await asked_once(store, "mine", by=user("bob")) == "bob"
    assert store.live.counters.shared == 0
    assert await asked_once(store, "mine", by=user("alice")) == "alice"
    assert store.live.counters.shared == 1


async def test_a_watched_failure_is_not_given_out(store: Running):
    watch = store.watch("broken")
    await watch.result()
    outcome = await store.live.query("m.js:broken", b"{}", ANONYMOUS)
    assert isinstance(outcome, Failure)
    assert "attempt 2" in outcome.message


async def test_a_watched_page_is_not_given_out(store: Running):
    for n in range(3):
        await store.mutation("send", room="a", text=str(n))
    opts = {"numItems": 2, "cursor": None}
    watch = store.watch("page", paginationOpts=opts)
    await watch.read()
    page = await asked_once(store, "page", paginationOpts=opts)
    assert len(page["page"]) == 2
    assert store.live.counters.shared == 0


async def test_an_equal_answer_is_the_same_object(store: Running):
    one = await store.mutation("send", room="a", text="one")
    watch = store.watch("listing", room="a")
    before = await watch.result()
    await store.mutation("edit", id=one, text="two")
    await store.mutation("edit", id=one, text="one")
    assert await watch.result() is before
