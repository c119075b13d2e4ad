"""The composition root: opening, reloading and closing a deployment."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from reactive_store.backend import DATABASE_FILE, Backend
from reactive_store.config import Settings
from reactive_store.errors import BadRequest, Retry, StoreFailed
from reactive_store.functions.loader import build_app
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.testing.faulty_persistence import FaultyPersistence
from tests.functions.running import Running, write_app

APP = """
@mutation
async def add(ctx, name: str) -> str:
    return await ctx.db.insert("people", {"name": name})

@query
async def people(ctx) -> list:
    return [person["name"] for person in await ctx.db.query("people").collect()]
"""
SCHEMA = 'schema = define_schema({"people": define_table({"name": v.string()})})'


async def no_more_threads_than(count: int) -> None:
    for _ in range(100):  # a thread that was let go needs a moment to end
        if threading.active_count() <= count:
            break
        await asyncio.sleep(0.01)
    assert threading.active_count() <= count


async def test_data_and_identity_of_a_deployment_survive_a_restart(tmp_path: Path):
    async with Running.open(tmp_path, APP, schema=SCHEMA, on_disk=True) as store:
        await store.mutation("add", name="Ann")
        key, ts = store.backend.admin_keys.issue(), store.now
        assert (tmp_path / "data" / DATABASE_FILE).is_file()
    async with Running.open(tmp_path, APP, schema=SCHEMA, on_disk=True) as store:
        assert await store.query("people") == ["Ann"]
        assert store.backend.admin_keys.verify(key)
        assert store.now >= ts


async def test_two_deployments_do_not_share_keys(tmp_path: Path):
    async with (
        Running.open(tmp_path / "a", APP) as one,
        Running.open(tmp_path / "b", APP) as two,
    ):
        assert not two.backend.admin_keys.verify(one.backend.admin_keys.issue())
        await one.mutation("add", name="Ann")
        assert await two.query("people") == []


async def test_a_second_backend_on_the_same_data_is_refused_and_the_first_goes_on(tmp_path: Path):
    async with Running.open(tmp_path, APP, on_disk=True) as store:
        store.backend.announce("http://127.0.0.1:3210")
        with pytest.raises(BadRequest, match=r"http://127\.0\.0\.1:3210"):
            await Backend.open(store.backend.settings, app=store.runner.app)
        await store.mutation("add", name="Ann")


async def test_data_can_be_opened_again_once_it_is_closed(tmp_path: Path):
    for _ in range(3):
        async with Running.open(tmp_path, APP, on_disk=True) as store:
            await store.mutation("add", name="Ann")


async def test_closing_twice_is_harmless_and_leaves_no_thread_or_task(tmp_path: Path):
    threads, tasks = threading.active_count(), len(asyncio.all_tasks())
    async with Running.open(tmp_path, APP, on_disk=True) as store:
        await store.mutation("add", name="Ann")
        await store.backend.close()
        await store.backend.close()
    assert len(asyncio.all_tasks()) == tasks
    await no_more_threads_than(threads)


async def test_a_failed_start_leaves_nothing_behind(tmp_path: Path):
    threads = threading.active_count()
    async with Running.open(tmp_path, APP, on_disk=True) as store:
        await store.mutation("add", name="Ann")
    app = write_app(
        tmp_path, APP, 'schema = define_schema({"people": define_table({"name": v.number()})})'
    )
    settings = Settings(app=tmp_path, data=tmp_path / "data")
    with pytest.raises(BadRequest, match=r'table "people" does not match the schema'):
        await Backend.open(settings, app=app)
    await no_more_threads_than(threads)
    async with Running.open(tmp_path, APP, schema=SCHEMA, on_disk=True) as store:
        assert await store.query("people") == ["Ann"]


async def test_a_reload_puts_new_code_and_its_schema_in_force(tmp_path: Path):
    async with Running.open(tmp_path, APP, schema=SCHEMA) as store:
        await store.mutation("add", name="Ann")
        by_name = (
            'schema = define_schema({"people": define_table(v.any()).index("by_name", ["name"])})'
        )
        newer = APP.replace('query("people")', 'query("people").with_index("by_name", name="Ann")')
        await store.backend.reload(write_app(tmp_path, newer, by_name))
        await store.mutation("add", name="Bob")
        assert await store.query("people") == ["Ann"]


async def test_a_failed_reload_changes_nothing(tmp_path: Path):
    async with Running.open(tmp_path, APP, schema=SCHEMA) as store:
        await store.mutation("add", name="Ann")
        watch = store.watch("people")
        await watch.read()
        old = store.runner.app
        wrong = 'schema = define_schema({"people": define_table({"name": v.number()})})'
        broken = write_app(tmp_path, APP.replace('person["name"]', "1"), wrong)
        with pytest.raises(BadRequest, match="does not match the schema"):
            await store.backend.reload(broken)
        assert store.runner.app is old
        assert watch.told == 0
        assert await store.query("people") == ["Ann"]
        await store.mutation("add", name="Bob")
        assert await watch.read() == ["Ann", "Bob"]


async def test_two_reloads_at_once_happen_one_after_the_other(tmp_path: Path):
    async with Running.open(tmp_path, APP, schema=SCHEMA) as store:
        await store.mutation("add", name="Ann")
        first = write_app(tmp_path, APP.replace('person["name"]', "1"), SCHEMA)
        second = write_app(tmp_path, APP.replace('person["name"]', "2"), SCHEMA)
        await asyncio.gather(store.backend.reload(first), store.backend.reload(second))
        assert await store.query("people") == [2]


async def test_statistics_count_what_happened(tmp_path: Path):
    async with Running.open(tmp_path, APP) as store:
        await store.mutation("add", name="Ann")
        await store.query("people")
        watch = store.watch("people")
        await watch.read()
        seen = store.backend.statistics()
        assert (seen.functions.mutations, seen.functions.queries, seen.live.runs) == (1, 2, 1)
        assert (seen.live_queries, seen.database.tables) == (1, 1)
        assert seen.database.latest_ts == store.now
        watch.close()
        left = store.backend.statistics()
        # The deployment's own loops wait on subscriptions too.
        assert left.database.subscriptions == seen.database.subscriptions - 1


async def test_after_a_failed_write_nothing_more_is_accepted_and_reads_go_on(tmp_path: Path):
    disk = FaultyPersistence(MemoryPersistence())
    async with Running.open(tmp_path, APP, persistence=disk) as store:
        await store.mutation("add", name="Ann")
        disk.fail()
        for _ in range(2):
            with pytest.raises(StoreFailed):
                await store.mutation("add", name="Bob")
        assert await store.query("people") == ["Ann"]


async def test_a_mutation_after_the_end_is_refused(tmp_path: Path):
    async with Running.open(tmp_path, APP) as store:
        await store.mutation("add", name="Ann")
        await store.backend.close()
        with pytest.raises(Retry):
            await asyncio.wait_for(store.mutation("add", name="Bob"), 1)


async def test_the_store_setting_chooses_the_file(tmp_path: Path):
    app = build_app()
    file = tmp_path / "elsewhere" / "my.db"
    backend = await Backend.open(
        Settings(app=tmp_path, data=tmp_path / "data", store=f"sqlite:///{file}"), app=app
    )
    await backend.close()
    assert file.is_file()


@pytest.mark.parametrize("store", ["postgresql://localhost/x", "sqlite://", "sqlite://host/x", "x"])
async def test_other_stores_are_refused(tmp_path: Path, store: str):
    with pytest.raises(BadRequest) as caught:
        await Backend.open(
            Settings(app=tmp_path, data=tmp_path / "data", store=store), app=build_app()
        )
    assert caught.value.code == "InvalidSetting"
