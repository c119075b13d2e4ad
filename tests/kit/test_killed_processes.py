"""Workflows and work pools in a real process that is killed again and again."""

from __future__ import annotations

import json
import random
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.e2e.server_process import ServerProcess

SCHEMA = """
from reactive_store import define_schema, define_table, v
from reactive_store.kit.workflow import workflow_tables
from reactive_store.kit.workpool import workpool_tables

schema = define_schema(
    {**workflow_tables(), **workpool_tables(), "log": define_table({"text": v.string()})}
)
"""

FUNCTIONS = """
import asyncio
from datetime import timedelta
from typing import Any

from reactive_store import (
    ActionCtx, MutationCtx, QueryCtx, internal_action, internal_mutation, mutation, query,
)
from reactive_store.kit.workflow import Step, Workflows
from reactive_store.kit.workpool import RetryPolicy, Workpool

pool = Workpool("work", check_every=timedelta(seconds=1), retry=RetryPolicy(max_attempts=20))
work_turn, work_act = pool.functions
flows = Workflows("flows", pool)
flows_turn = flows.function


@internal_mutation
async def note(ctx: MutationCtx, text: str) -> int:
    await ctx.db.insert("log", {"text": text})
    return len(await ctx.db.query("log").collect())


@internal_action
async def slow(ctx: ActionCtx, name: str) -> str:
    await asyncio.sleep(0.15)
    return name


@flows.define
async def travel(step: Step, name: str) -> list[Any]:
    async def leg(number: int) -> Any:
        answer = await step.run_action(slow, True, name=f"{name} {number}")
        await step.run_mutation(note, text=answer)
        return answer
    first = [await leg(number) for number in range(4)]
    await step.sleep(timedelta(milliseconds=300))
    both = await asyncio.gather(leg(4), leg(5))
    await step.run_mutation(note, text=f"{name} end")
    return [*first, *both]


@mutation
async def start(ctx: MutationCtx, name: str) -> str:
    return await flows.start(ctx, travel, {"name": name})


@query
async def status(ctx: QueryCtx, id: str) -> Any:
    return await flows.status(ctx, id)


@query
async def log(ctx: QueryCtx) -> list[str]:
    return [each["text"] for each in await ctx.db.query("log").collect()]
"""


def call(server: ServerProcess, kind: str, path: str, **args: Any) -> Any:
    body = json.dumps({"path": path, "args": args, "format": "json"}).encode()
    request = urllib.request.Request(
        f"{server.url}/api/{kind}", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        answer = json.load(response)
    assert answer["status"] == "success", answer
    return answer["value"]


def test_no_step_is_lost_or_done_twice_however_often_the_process_is_killed(tmp_path: Path):
    app = tmp_path / "app"
    (app / "functions").mkdir(parents=True)
    (app / "schema.py").write_text(SCHEMA, encoding="utf-8")
    (app / "functions" / "trips.py").write_text(FUNCTIONS, encoding="utf-8")
    moments = random.Random(5)
    names = ["ann", "bob", "cy"]
    with ServerProcess(app, tmp_path / "data") as server:
        flows = [call(server, "mutation", "trips:start", name=name) for name in names]
        for _ in range(6):
            time.sleep(moments.uniform(0.05, 0.7))
            server.restart()
        give_up = time.monotonic() + 60
        while True:
            found = [call(server, "query", "trips:status", id=flow) for flow in flows]
            if all(each["state"] != "running" for each in found):
                break
            assert time.monotonic() < give_up, found
            time.sleep(0.1)
        for name, status in zip(names, found, strict=True):
            wanted = [f"{name} {number}" for number in range(6)]
            assert status["result"] == {"kind": "success", "returnValue": wanted}
        everything = [f"{name} {part}" for name in names for part in (*range(6), "end")]
        assert sorted(call(server, "query", "trips:log")) == sorted(everything)
