"""Functions of many steps that survive restarts."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reactive_store import MutationCtx, define_schema, define_table, v
from reactive_store.kit.workflow import Workflows, workflow_tables
from reactive_store.kit.workpool import Workpool, workpool_tables
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.testing import FunctionError, TestBackend

SCHEMA = define_schema(
    {
        **workpool_tables(),
        **workflow_tables(),
        "log": define_table({"text": v.any()}),
    }
)

FUNCTIONS = """
import asyncio
from datetime import timedelta
from typing import Any

from reactive_store import (
    ActionCtx, ConvexError, MutationCtx, QueryCtx, internal_action, internal_mutation,
    internal_query, mutation, query,
)
from reactive_store.kit.workflow import Step, StepError, Workflows
from reactive_store.kit.workpool import Workpool

pool = Workpool("work", max_parallelism=5)
work_turn, work_act = pool.functions
flows = Workflows("flows", pool)
flows_turn = flows.function
GATES: Any = {}


@internal_mutation
async def note(ctx: MutationCtx, text: Any) -> int:
    await ctx.db.insert("log", {"text": text})
    return len(await ctx.db.query("log").collect())


@query
async def log(ctx: QueryCtx) -> list[Any]:
    return [each["text"] for each in await ctx.db.query("log").collect()]


@internal_action
async def work(ctx: ActionCtx, name: str, seconds: float = 0, gate: bool = False) -> str:
    await ctx.run_mutation(note, text=f"begin {name}")
    if gate:
        await GATES.setdefault(name, asyncio.Event()).wait()
    await ctx.run_mutation(note, text=f"end {name}")
    return name.upper()


@internal_mutation
async def refuse(ctx: MutationCtx, data: Any = None) -> None:
    await ctx.db.insert("log", {"text": "undone"})
    if data is not None:
        raise ConvexError(data)
    raise ValueError("refused")


@internal_mutation
async def done(ctx: MutationCtx, workflow_id: str, result: Any, context: Any) -> None:
    await ctx.db.insert("log", {"text": {"context": context, "result": result}})


@mutation
async def start(ctx: MutationCtx, name: str, args: Any = None) -> str:
    return await flows.start(ctx, name, args, on_complete=done, context=name)


@query
async def status(ctx: QueryCtx, id: str) -> Any:
    return await flows.status(ctx, id)


@mutation
async def cancel(ctx: MutationCtx, id: str) -> bool:
    return await flows.cancel(ctx, id)


@mutation
async def send_event(ctx: MutationCtx, id: str, name: str, value: Any = None) -> bool:
    return await flows.send_event(ctx, id, name, value)


@mutation
async def cleanup(ctx: MutationCtx, id: str) -> bool:
    return await flows.cleanup(ctx, id)


@flows.define
async def all_kinds(step: Step, user: str) -> Any:
    first = await step.run_mutation(note, text=f"hello {user}")
    seen = await step.run_query(log)
    mail = await step.run_action(work, True, name=user)
    await step.sleep(timedelta(hours=3))
    answer = await step.wait_event("answered")
    return {"first": first, "seen": seen, "mail": mail, "answer": answer}


@flows.define
async def parallel(step: Step, gate: bool = True) -> Any:
    async def branch(name: str) -> list[Any]:
        result = await step.run_action(work, True, name=name, gate=gate)
        count = await step.run_mutation(note, text=f"after {name}")
        inner = await asyncio.gather(
            *(step.run_mutation(note, text=f"{name}{n}") for n in range(2)),
            step.run_query(log),
        )
        return [result, count, len(inner)]
    return await asyncio.gather(branch("a"), branch("b"), step.sleep(timedelta(hours=1)))


@flows.define
async def catching(step: Step) -> Any:
    caught = []
    try:
        await step.run_mutation(refuse)
    except StepError as error:
        caught.append(str(error))
    try:
        await step.run_mutation(refuse, data={"code": 7})
    except ConvexError as error:
        caught.append(error.data)
    try:
        await step.run_query("flow:missing")
    except StepError as error:
        caught.append("missing" in str(error))
    return caught


@flows.define
async def failing(step: Step) -> None:
    await step.run_mutation(note, text="before")
    raise ValueError("the workflow itself")


@flows.define
async def waits_elsewhere(step: Step) -> None:
    await asyncio.get_running_loop().create_future()


@flows.define
async def returns_no_value(step: Step) -> Any:
    return object()


@flows.define
async def chance(step: Step) -> Any:
    first = step.random.random()
    await step.run_mutation(note, text="x")
    return [first, step.random.random(), step.started_at]


@flows.define
async def race(step: Step) -> str:
    task = asyncio.ensure_future(step.wait_event("answered"))
    timer = asyncio.ensure_future(step.sleep(timedelta(hours=1)))
    ended, _ = await asyncio.wait({task, timer}, return_when=asyncio.FIRST_COMPLETED)
    return task.result() if task in ended else "nobody answered"


@flows.define
async def many(step: Step, count: float) -> int:
    total = 0
    for n in range(int(count)):
        total += len(await step.run_query(log)) + n
    return total


@flows.define
async def tree(step: Step) -> int:
    async def node(name: str) -> int:
        if len(name) == 4:
            await step.sleep(timedelta(minutes=step.random.randrange(1, 60)))
            await step.run_mutation(note, text=name)
            return 1
        letters = "xyz"[: 1 + len(name) % 3]
        below = await asyncio.gather(*(node(name + letter) for letter in letters))
        await step.run_mutation(note, text=name)
        return 1 + sum(below)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(node(letter)) for letter in "ab"]
    return sum(task.result() for task in tasks)


@flows.define
async def changing(step: Step) -> str:
    await step.run_mutation(note, text="one")
    await step.wait_event("go")
    return "done"
"""


@pytest.fixture
def app(tmp_path: Path) -> Callable[..., Path]:
    def write(*replaced: tuple[str, str]) -> Path:
        folder = tmp_path / "functions"
        folder.mkdir(exist_ok=True)
        text = FUNCTIONS
        for old, new in replaced:
            assert old in text
            text = text.replace(old, new)
        (folder / "flow.py").write_text(text, encoding="utf-8")
        return folder

    return write


def gate(t: TestBackend, name: str) -> Any:
    found = t.backend.runner.app.find("flow.js:work")
    assert found is not None
    return found.handler.__globals__["GATES"][name]


async def result_of(t: TestBackend, flow: str) -> Any:
    status = await t.query("flow:status", id=flow)
    return status["state"], status["result"]


async def test_all_kinds_of_steps_give_their_results(app: Callable[..., Path]):
    async with TestBackend(SCHEMA, app()) as t:
        flow = await t.mutation("flow:start", name="all_kinds", args={"user": "ann"})
        await t.finish_scheduled_functions()
        status = await t.query("flow:status", id=flow)
        assert status["state"] == "running"
        assert [(each["kind"], each["state"]) for each in status["steps"]] == [
            ("mutation", "success"), ("query", "success"), ("action", "success"),
            ("sleep", "running"),
        ]  # fmt: skip
        assert status["steps"][0]["name"] == "flow.js:note"
        await t.advance(timedelta(hours=3))
        status = await t.query("flow:status", id=flow)
        assert status["steps"][-1] == {"kind": "event", "name": "answered", "state": "running"}
        assert await t.mutation("flow:sendEvent", id=flow, name="answered", value=42)
        await t.finish_scheduled_functions()
        assert await result_of(t, flow) == (
            "success",
            {
                "kind": "success",
                "returnValue": {
                    "first": 1, "seen": ["hello ann"], "mail": "ANN", "answer": 42,
                },
            },
        )  # fmt: skip
        log = await t.query("flow:log")
        assert log[:3] == ["hello ann", "begin ann", "end ann"]
        assert log[3]["context"] == "all_kinds"
        assert len(log) == 4
        assert not await t.mutation("flow:sendEvent", id=flow, name="answered")


async def test_a_workflow_goes_on_after_a_restart_wherever_it_was(app: Callable[..., Path]):
    """The process ends in the middle of each step; every effect still happens once."""
    disk = MemoryPersistence()
    folder = app(("name=user)", "name=user, gate=True)"))
    seeds = itertools.count()  # processes do not make the same ids

    def opened() -> TestBackend:
        return TestBackend(SCHEMA, folder, persistence=disk, seed=next(seeds))

    async with opened() as t:
        flow = await t.mutation("flow:start", name="all_kinds", args={"user": "ann"})
    # Nothing was waited for: the first turn had not run.
    async with opened() as t:
        await t.advance(timedelta(seconds=5))
        assert await t.query("flow:log") == ["hello ann", "begin ann"]
    # In the middle of the action, which is tried again.
    async with opened() as t:
        await t.advance(timedelta(seconds=60))
        assert await t.query("flow:log") == ["hello ann", "begin ann", "begin ann"]
        gate(t, "ann").set()
        await t.finish_scheduled_functions()
    # While it sleeps; the clock of each backend begins anew.
    async with opened() as t:
        await t.advance(timedelta(hours=4))
        status = await t.query("flow:status", id=flow)
        assert status["steps"][-1]["kind"] == "event"
    # While it waits for an event, which comes just before the end.
    async with opened() as t:
        await t.mutation("flow:sendEvent", id=flow, name="answered", value="yes")
    async with opened() as t:
        await t.advance(timedelta(seconds=5))
        state, result = await result_of(t, flow)
        assert state == "success"
        assert result["returnValue"] == {
            "first": 1, "seen": ["hello ann"], "mail": "ANN", "answer": "yes",
        }  # fmt: skip
        log = await t.query("flow:log")
        assert log[:4] == ["hello ann", "begin ann", "begin ann", "end ann"]
        assert len(log) == 5


@pytest.mark.parametrize("order", ["ab", "ba"])
async def test_parallel_branches_give_the_same_calls_whatever_ends_first(
    order: str, app: Callable[..., Path]
):
    async with TestBackend(SCHEMA, app()) as t:
        flow = await t.mutation("flow:start", name="parallel")
        await t.advance(timedelta(seconds=1))
        for name in order:
            gate(t, name).set()
            await t.advance(timedelta(seconds=1))
        assert (await result_of(t, flow))[0] == "running"
        await t.advance(timedelta(hours=1))
        state, result = await result_of(t, flow)
        assert (state, result.get("error")) == ("success", None)
        ours, theirs, slept = result["returnValue"]
        assert (ours[0], ours[2], theirs[0], theirs[2], slept) == ("A", 3, "B", 3, None)
        log = await t.query("flow:log")
        afters = [text for text in log if str(text).startswith("after")]
        assert afters == [f"after {name}" for name in order]
        assert sorted(text for text in log if text in ("a0", "a1", "b0", "b1")) == [
            "a0", "a1", "b0", "b1",
        ]  # fmt: skip


async def test_tasks_inside_of_tasks_go_on_after_restarts(app: Callable[..., Path]):
    """Whatever ends first, and wherever the process ends, every step is done once."""
    disk = MemoryPersistence()
    folder = app()
    async with TestBackend(SCHEMA, folder, persistence=disk) as t:
        flow = await t.mutation("flow:start", name="tree")
        await t.advance(timedelta(minutes=20))
    for seed in range(1, 3):
        async with TestBackend(SCHEMA, folder, persistence=disk, seed=seed) as t:
            await t.advance(timedelta(minutes=20 * seed))
    async with TestBackend(SCHEMA, folder, persistence=disk, seed=9) as t:
        await t.advance(timedelta(hours=3))
        state, result = await result_of(t, flow)
        texts = [each for each in await t.query("flow:log") if isinstance(each, str)]
        assert (state, result) == ("success", {"kind": "success", "returnValue": len(texts)})
        assert len(set(texts)) == len(texts) > 20


async def test_failures_of_steps_are_exceptions_of_the_handler(app: Callable[..., Path]):
    async with TestBackend(SCHEMA, app()) as t:
        flow = await t.mutation("flow:start", name="catching")
        await t.finish_scheduled_functions()
        state, result = await result_of(t, flow)
        assert state == "success", result
        assert result["returnValue"] == ["ValueError: refused", {"code": 7}, True]
        assert "undone" not in await t.query("flow:log")


async def test_a_workflow_that_raises_has_failed(app: Callable[..., Path]):
    async with TestBackend(SCHEMA, app()) as t:
        flow = await t.mutation("flow:start", name="failing")
        await t.finish_scheduled_functions()
        result = {"kind": "failed", "error": "ValueError: the workflow itself"}
        assert await result_of(t, flow) == ("failed", result)
        assert await t.query("flow:log") == ["before", {"context": "failing", "result": result}]


async def test_what_cannot_be_is_named(app: Callable[..., Path]):
    async with TestBackend(SCHEMA, app()) as t:
        flow = await t.mutation("flow:start", name="waits_elsewhere")
        other = await t.mutation("flow:start", name="returns_no_value")
        await t.finish_scheduled_functions()
        state, result = await result_of(t, flow)
        assert state == "failed"
        assert "waits for something that is no step" in result["error"]
        assert (await result_of(t, other))[0] == "failed"
        with pytest.raises(FunctionError, match="no workflow 'nobody'"):
            await t.mutation("flow:start", name="nobody")


async def test_a_canceled_workflow_stops_its_steps(app: Callable[..., Path]):
    async with TestBackend(SCHEMA, app()) as t:
        flow = await t.mutation("flow:start", name="parallel")
        await t.advance(timedelta(seconds=1))
        assert await t.mutation("flow:cancel", id=flow)
        assert not await t.mutation("flow:cancel", id=flow)
        for name in "ab":
            gate(t, name).set()
        await t.advance(timedelta(hours=2))
        assert (await result_of(t, flow))[0] == "canceled"
        texts = [each for each in await t.query("flow:log") if isinstance(each, str)]
        assert sorted(texts) == ["begin a", "begin b", "end a", "end b"]
        assert await t.mutation("flow:cleanup", id=flow)
        assert await t.query("flow:status", id=flow) is None

        async def left(ctx: MutationCtx) -> int:
            tables = ("workflows", "workflowSteps", "workflowEvents")
            return sum([len(await ctx.db.query(table).collect()) for table in tables])

        assert await t.run(left) == 0


async def test_chance_is_the_same_in_every_run(app: Callable[..., Path]):
    async with TestBackend(SCHEMA, app()) as t:
        flows = [await t.mutation("flow:start", name="chance") for _ in range(2)]
        await t.finish_scheduled_functions()
        (first, second, started), other = [
            (await result_of(t, flow))[1]["returnValue"] for flow in flows
        ]
        assert 0 <= first < 1
        assert first != second
        assert first != other[0]
        assert abs(started - t.now_ms) < 1000


@pytest.mark.parametrize("is_answered", [True, False])
async def test_an_event_or_a_time_out(is_answered: bool, app: Callable[..., Path]):
    async with TestBackend(SCHEMA, app()) as t:
        flow = await t.mutation("flow:start", name="race")
        await t.advance(timedelta(minutes=59))
        if is_answered:
            await t.mutation("flow:sendEvent", id=flow, name="other")
            await t.mutation("flow:sendEvent", id=flow, name="answered", value="hello")
        await t.advance(timedelta(minutes=2))
        _, result = await result_of(t, flow)
        assert result["returnValue"] == ("hello" if is_answered else "nobody answered")


async def test_events_that_come_early_are_kept_in_order(app: Callable[..., Path]):
    twice = ('return "done"', 'return [await step.wait_event("go"), await step.wait_event("go")]')
    async with TestBackend(SCHEMA, app(twice)) as t:
        flow = await t.mutation("flow:start", name="changing")
        for n in range(3):
            await t.mutation("flow:sendEvent", id=flow, name="go", value=n)
        await t.finish_scheduled_functions()
        assert (await result_of(t, flow))[1]["returnValue"] == [1, 2]


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('text="one"', 'text="two"', "step 0 of the journal is mutation flow.js:note"),
        ('    await step.run_mutation(note, text="one")\n', "", "the handler asks for event go"),
        ('wait_event("go")', 'wait_event("went")', "the handler asks for event went"),
        ('    await step.wait_event("go")\n', "", "the handler ends without it"),
        ("async def changing", "async def changed", "not defined any more"),
    ],
)
async def test_changed_code_is_noticed(old: str, new: str, text: str, app: Callable[..., Path]):
    disk = MemoryPersistence()
    async with TestBackend(SCHEMA, app(), persistence=disk) as t:
        flow = await t.mutation("flow:start", name="changing")
        await t.finish_scheduled_functions()
        assert len((await t.query("flow:status", id=flow))["steps"]) == 2
    async with TestBackend(SCHEMA, app((old, new)), persistence=disk, seed=1) as t:
        await t.mutation("flow:sendEvent", id=flow, name="go")
        await t.finish_scheduled_functions()
        state, result = await result_of(t, flow)
        assert state == "failed"
        assert text in result["error"]


async def test_many_steps_and_many_workflows(app: Callable[..., Path]):
    async with TestBackend(SCHEMA, app()) as t:
        long = await t.mutation("flow:start", name="many", args={"count": 200})
        flows = [
            await t.mutation("flow:start", name="all_kinds", args={"user": str(n)})
            for n in range(20)
        ]
        for flow in flows:
            await t.mutation("flow:sendEvent", id=flow, name="answered")
        await t.finish_scheduled_functions(timeout=30)
        await t.advance(timedelta(hours=4))
        assert (await result_of(t, long))[1]["returnValue"] >= 199 * 100
        for flow in flows:
            assert (await result_of(t, flow))[0] == "success"
        log = await t.query("flow:log")
        hellos = [each for each in log if str(each).startswith("hello")]
        assert len(hellos) == len(set(hellos)) == 20


def test_mistakes_at_definition_are_named():
    flows = Workflows("flows", Workpool("work"))

    async def twice(step: Any) -> None: ...

    flows.define(twice)
    with pytest.raises(ValueError, match="already"):
        flows.define(twice)
    with pytest.raises(TypeError, match="async def"):
        flows.define(lambda step: None)  # type: ignore[arg-type, return-value]
