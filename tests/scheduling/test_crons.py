"""Crons run by themselves: first runs, order, overlap, missed runs, deploys, restarts, failures."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reactive_store.functions.loader import load_app
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.testing import TestBackend
from reactive_store.values.document import Document
from tests.scheduling.conftest import NOTES, write_app

MINUTE = timedelta(minutes=1)
EVERY_MINUTE = 'crons.interval("tick", timedelta(minutes=1), internal.notes.add, {"text": "tick"})'


def documents(t: TestBackend, table: str) -> list[dict[str, Any]]:
    """What one of our tables holds."""
    database = t.backend.database
    number = database.catalog.tables[table].number
    page = database.persistence.scan_table(
        number, b"", None, database.latest_ts, descending=False, limit=1000
    )
    return [dict(Document(row.value, table)) for row in page.rows]


def cron(t: TestBackend, name: str) -> dict[str, Any]:
    (found,) = [each for each in documents(t, "_cron_jobs") if each["name"] == name]
    return found


def runs(t: TestBackend, name: str = "tick") -> list[dict[str, Any]]:
    found = [each for each in documents(t, "_cron_job_logs") if each["name"] == name]
    return sorted(found, key=lambda each: each["ts"])


async def reload(t: TestBackend, root: Path, **sources: Any) -> None:
    await t.backend.reload(load_app(write_app(root, **sources)))
    await t.finish_scheduled_functions()


async def test_an_interval_runs_when_deployed_and_then_at_equal_distances(tmp_path: Path):
    """F140."""
    crons = """
    crons.interval("now", timedelta(minutes=1), internal.notes.add_at, {"text": "now"})
    crons.hourly("clock", internal.notes.add_at, {"text": "clock"}, minute_utc=0)
    """
    async with TestBackend(app=write_app(tmp_path, crons=crons)) as t:
        start = t.now_ms
        assert await t.query("notes:texts") == [f"now at {start:.0f}"]
        await t.advance(2.5 * MINUTE)
        clock = cron(t, "clock")["nextTime"]
        expected = {start: "now", start + 60_000: "now", start + 120_000: "now"}
        if clock < start:  # its minute of midnight was not over yet
            raise AssertionError("it has run for a time before it was deployed")
        notes = await t.query("notes:texts")
        assert [note for note in notes if note.startswith("now")] == [
            f"{text} at {ms:.0f}" for ms, text in expected.items()
        ]
        await t.advance(timedelta(hours=1))
        notes = await t.query("notes:texts")
        first = next(note for note in notes if note.startswith("clock"))
        offset_ms = float(first.partition(" at ")[2]) - start
        assert 0 < offset_ms % 3_600_000 < 60_000


async def test_forty_days_of_crons_run_in_order_and_quickly(tmp_path: Path):
    crons = """
    crons.daily("d", internal.notes.add_at, {"text": "d"}, hour_utc=3, minute_utc=0)
    crons.weekly("w", internal.notes.add_at, {"text": "w"}, day_of_week="monday", hour_utc=5)
    crons.monthly("m", internal.notes.add_at, {"text": "m"}, day=1, hour_utc=6, minute_utc=0)
    crons.cron("c", "0 */6 * * *", internal.notes.add_at, {"text": "c"})
    """
    async with TestBackend(app=write_app(tmp_path, crons=crons)) as t:
        began = time.perf_counter()
        await t.advance(timedelta(days=40))
        assert time.perf_counter() - began < 30
        notes = await t.query("notes:texts")
        instants = [float(note.partition(" at ")[2]) for note in notes]
        assert instants == sorted(instants)
        kinds = [note[0] for note in notes]
        assert [kinds.count(kind) for kind in "dwm"] == [40, 5, 2]
        assert kinds.count("c") in (160, 161)


async def test_a_run_that_lasts_longer_than_the_interval_is_not_joined_by_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """F141."""
    source = """
import asyncio
from reactive_store import ActionCtx, MutationCtx, QueryCtx, internal_action, mutation, query

gate = asyncio.Event()
running, most, begun = 0, 0, 0

@internal_action
async def slow(ctx: ActionCtx) -> None:
    global running, most, begun
    running, begun = running + 1, begun + 1
    most = max(most, running)
    await gate.wait()
    running -= 1
"""
    crons = 'crons.interval("tick", timedelta(minutes=1), internal.notes.slow)'
    async with TestBackend(app=write_app(tmp_path, notes=source, crons=crons)) as t:
        module = t.backend.runner.app.functions["notes.js:slow"].handler.__globals__
        start = t.now_ms
        assert module["begun"] == 1
        assert cron(t, "tick")["state"] == {"kind": "inProgress"}
        await t.advance(3.5 * MINUTE)
        assert (module["begun"], module["most"]) == (1, 1)
        with caplog.at_level(logging.WARNING, "reactive_store.scheduling"):
            module["gate"].set()
            await t.finish_scheduled_functions()
        text = "Skipping 3 run(s) of job tick because multiple scheduled runs are in the past"
        assert text in [record.getMessage() for record in caplog.records]
        assert cron(t, "tick")["nextTime"] == start + 240_000
        await t.advance(0.5 * MINUTE)
        assert (module["begun"], module["most"]) == (2, 1)
        canceled = [run for run in runs(t) if run["status"]["type"] == "canceled"]
        assert [int(run["status"]["num_canceled"]) for run in canceled] == [3]
        assert canceled[0]["logLines"] == [f"[WARN] '{text}'"]


async def test_after_a_pause_one_overdue_run_is_made_and_the_rest_left_out(tmp_path: Path):
    """F141."""
    app = write_app(tmp_path, crons=EVERY_MINUTE)
    disk = MemoryPersistence()
    async with TestBackend(app=app, persistence=disk) as t:
        await t.advance(MINUTE)
        start = t.now_ms
    t = TestBackend(app=app, persistence=disk, seed=1)
    await t.runtime.advance(MINUTE + 10.5 * MINUTE)
    async with t:
        assert len(await t.query("notes:texts")) == 3
        assert cron(t, "tick")["nextTime"] == start + 11 * 60_000
        await t.advance(MINUTE)
        assert len(await t.query("notes:texts")) == 4


async def test_a_deploy_keeps_the_time_of_what_is_unchanged_and_ends_what_is_gone(tmp_path: Path):
    """F143, F192."""
    both = """
    crons.interval("stays", timedelta(minutes=10), internal.notes.add, {"text": "stays"})
    crons.interval("goes", timedelta(minutes=10), internal.notes.add, {"text": "goes"})
    crons.interval("faster", timedelta(minutes=10), internal.notes.add, {"text": "faster"})
    crons.interval("renamed", timedelta(minutes=10), internal.notes.add, {"text": "old words"})
    """
    async with TestBackend(app=write_app(tmp_path, crons=both)) as t:
        start = t.now_ms
        await t.advance(5 * MINUTE)
        # The file alone changes nothing: it is read when an app is put in force.
        write_app(tmp_path, crons="")
        assert len(documents(t, "_cron_jobs")) == 4
        changed = both.replace("goes", "comes").replace("old words", "new words")
        await reload(
            t,
            tmp_path,
            crons=changed.replace(
                '"faster", timedelta(minutes=10)', '"faster", timedelta(minutes=7)'
            ),
        )
        following = {each["name"]: each["nextTime"] - start for each in documents(t, "_cron_jobs")}
        assert following == {
            "stays": 600_000,
            "comes": 900_000,  # has run when it was deployed
            "faster": 420_000,
            "renamed": 600_000,
        }
        assert runs(t, "goes") == []
        await t.advance(5 * MINUTE)
        counted = {text: (await t.query("notes:texts")).count(text) for text in (
            "stays", "goes", "comes", "faster", "old words", "new words"
        )}  # fmt: skip
        assert counted == {
            "stays": 2, "goes": 1, "comes": 1, "faster": 2, "old words": 1, "new words": 1,
        }  # fmt: skip
        await reload(t, tmp_path, crons=None)
        assert documents(t, "_cron_jobs") == documents(t, "_cron_job_logs") == []
        await t.advance(60 * MINUTE)
        assert len(await t.query("notes:texts")) == 8


async def test_a_cron_deployed_with_a_function_of_the_same_deploy_finds_it(tmp_path: Path):
    async with TestBackend(app=write_app(tmp_path, crons="")) as t:
        added = NOTES + (
            "\n@internal_mutation\nasync def fresh(ctx: MutationCtx) -> None:\n"
            '    await ctx.db.insert("notes", {"text": "fresh"})\n'
        )
        crons = 'crons.interval("tick", timedelta(minutes=1), internal.notes.fresh)'
        await reload(t, tmp_path, notes=added, crons=crons)
        assert await t.query("notes:texts") == ["fresh"]
        assert [run["status"]["type"] for run in runs(t)] == ["success"]


async def test_a_cron_that_fails_says_why_and_runs_again_at_its_time(tmp_path: Path):
    """F144."""
    crons = """
    crons.interval("tick", timedelta(minutes=1), internal.notes.fail, {"text": "x"})
    crons.interval("act", timedelta(minutes=1), internal.notes.go_wrong)
    """
    async with TestBackend(app=write_app(tmp_path, crons=crons)) as t:
        await t.advance(2 * MINUTE)
        for name, text in (("tick", "Uncaught ConvexError"), ("act", "Uncaught ValueError")):
            statuses = [run["status"] for run in runs(t, name)]
            assert [status["type"] for status in statuses] == ["err"] * 3
            assert statuses[0]["error"].startswith(text)
        assert await t.query("notes:texts") == ["kept"] * 3


async def test_the_last_runs_are_remembered_with_their_lines(tmp_path: Path):
    async with TestBackend(app=write_app(tmp_path, crons=EVERY_MINUTE)) as t:
        start = t.now_ms
        await t.advance(9 * MINUTE)
        last = runs(t)
        assert [run["ts"] - start for run in last] == [n * 60_000 for n in range(5, 10)]
        assert last[0]["logLines"] == ["[LOG] 'adding' 'tick'"]
        assert last[0]["path"] == "notes.js:add"
        assert last[0]["args"] == [{"text": "tick"}]


async def test_an_action_interrupted_by_a_restart_is_not_run_again_for_that_time(tmp_path: Path):
    crons = 'crons.interval("tick", timedelta(minutes=1), internal.notes.wait, {"text": "it"})'
    app = write_app(tmp_path, crons=crons)
    disk = MemoryPersistence()
    async with TestBackend(app=app, persistence=disk) as t:
        start = t.now_ms
        assert await t.query("notes:texts") == ["it begins"]
    async with TestBackend(app=app, persistence=disk, seed=1) as t:
        assert await t.query("notes:texts") == ["it begins"]
        (run,) = runs(t)
        assert run["status"] == {"error": "Transient error while executing action", "type": "err"}
        assert cron(t, "tick")["nextTime"] == start + 60_000
        await t.advance(MINUTE)
        assert await t.query("notes:texts") == ["it begins"] * 2


async def test_a_cron_removed_while_it_runs_ends_quietly(tmp_path: Path):
    crons = 'crons.interval("tick", timedelta(minutes=1), internal.notes.wait, {"text": "it"})'
    async with TestBackend(app=write_app(tmp_path, crons=crons)) as t:
        gate = t.backend.runner.app.functions["notes.js:wait"].handler.__globals__["gate"]
        await t.backend.reload(load_app(write_app(tmp_path, crons="")))
        gate.set()
        await t.finish_scheduled_functions()
        assert documents(t, "_cron_jobs") == documents(t, "_cron_job_logs") == []
        assert (await t.query("notes:texts"))[:2] == ["it begins", "it goes on"]


async def test_nobody_is_logged_in_when_a_cron_runs(tmp_path: Path):
    """F135."""
    crons = """
    crons.interval("mutation", timedelta(minutes=1), internal.notes.who)
    crons.interval("action", timedelta(minutes=1), internal.notes.who_is_asked)
    """
    async with TestBackend(app=write_app(tmp_path, crons=crons)) as t:
        await t.finish_scheduled_functions()
        assert await t.query("notes:texts") == ["None"] * 3


async def test_the_app_cannot_look_into_the_tables_of_the_crons(tmp_path: Path):
    async with TestBackend(app=write_app(tmp_path, crons=EVERY_MINUTE)) as t:

        async def look(ctx: Any) -> None:
            await ctx.db.system.query("_cron_jobs").collect()

        with pytest.raises(Exception, match="There is no system table"):
            await t.run(look)


async def test_closing_while_a_cron_runs_leaves_nothing_behind(tmp_path: Path):
    crons = 'crons.interval("tick", timedelta(minutes=1), internal.notes.wait, {"text": "it"})'
    before = asyncio.all_tasks()
    async with TestBackend(app=write_app(tmp_path, crons=crons)):
        pass
    assert asyncio.all_tasks() == before
