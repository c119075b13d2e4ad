"""Environment variables: read by name, changed together, live."""

from __future__ import annotations

from pathlib import Path

import pytest

from reactive_store.auth.identity import ANONYMOUS
from reactive_store.backend import Backend
from reactive_store.config import Settings
from reactive_store.errors import BadRequest
from reactive_store.functions.outcome import Success
from reactive_store.persistence.memory import MemoryPersistence
from reactive_store.values.wire import loads
from tests.functions.running import FailedCall, Running, write_app

APP = """
@query
async def one(ctx, name: str):
    return ctx.env.get(name)

@query
async def needed(ctx, name: str):
    return ctx.env[name]

@query
async def everything(ctx):
    return dict(ctx.env)

@query
async def has(ctx, name: str):
    return [name in ctx.env, len(ctx.env), repr(ctx.env)]
"""


@pytest.fixture
async def store(tmp_path: Path):
    async with Running.open(tmp_path, APP) as running:
        yield running


async def test_variables_are_set_read_changed_and_removed(store: Running):
    environment = store.backend.environment
    await environment.update({"A": "1", "B": "2"})
    assert await store.query("one", name="A") == "1"
    assert (await store.query("everything")).items() >= {"A": "1", "B": "2"}.items()
    await environment.update({"A": "3", "B": None, "NEVER": None})
    assert dict(await environment.all()) == {"A": "3"}
    assert await store.query("has", name="A") == [True, 3, "Environment(…)"]
    assert await store.query("has", name="B") == [False, 3, "Environment(…)"]


async def test_a_missing_variable_is_a_key_error_that_names_it(store: Running):
    assert await store.query("one", name="NONE") is None
    with pytest.raises(FailedCall, match="Uncaught KeyError: 'NONE'"):
        await store.query("needed", name="NONE")


async def test_a_change_runs_only_the_queries_that_read_that_variable(store: Running):
    await store.backend.environment.update({"A": "1", "B": "2"})
    watches = {name: store.watch("one", name=name) for name in ("A", "B", "LATER")}
    every = store.watch("everything")
    for watch in (*watches.values(), every):
        await watch.read()
    await store.backend.environment.update({"A": "9"})
    assert {name: watch.told for name, watch in watches.items()} == {"A": 1, "B": 0, "LATER": 0}
    assert every.told == 1
    await store.backend.environment.update({"LATER": "x"})
    assert watches["LATER"].told == 1
    assert await watches["LATER"].read() == "x"


async def test_the_addresses_are_built_in(store: Running):
    """F182."""
    assert await store.query("needed", name="CONVEX_CLOUD_URL") == "http://127.0.0.1:3210"
    assert await store.query("needed", name="CONVEX_SITE_URL") == "http://127.0.0.1:3211"
    store.backend.announce("http://127.0.0.1:5000")
    store.backend.announce_site("http://127.0.0.1:5001")
    everything = await store.query("everything")
    assert everything == {
        "CONVEX_CLOUD_URL": "http://127.0.0.1:5000", "CONVEX_SITE_URL": "http://127.0.0.1:5001",
    }  # fmt: skip
    assert await store.query("has", name="CONVEX_SITE_URL") == [True, 2, "Environment(…)"]
    for name in everything:
        with pytest.raises(BadRequest, match=f'"{name}" is built-in and cannot be overridden'):
            await store.backend.environment.update({name: "http://evil.example"})
    assert dict(await store.backend.environment.all()) == {}


async def test_configured_addresses_come_before_announced_ones(tmp_path: Path):
    settings = Settings(
        app=tmp_path, origin="https://my.app", site_origin="https://site.app", host="::1"
    )
    backend = await Backend.open(
        settings, app=write_app(tmp_path, APP), persistence=MemoryPersistence()
    )
    try:
        backend.announce("http://127.0.0.1:5000")
        backend.announce_site("http://127.0.0.1:5001")
        outcome = await backend.runner.query("m.js:everything", {}, ANONYMOUS)
        assert isinstance(outcome, Success)
        assert loads(outcome.value) == {
            "CONVEX_CLOUD_URL": "https://my.app", "CONVEX_SITE_URL": "https://site.app",
        }  # fmt: skip
    finally:
        await backend.close()


async def test_an_equal_value_changes_nothing(store: Running):
    await store.backend.environment.update({"A": "1"})
    watch = store.watch("one", name="A")
    await watch.read()
    await store.backend.environment.update({"A": "1"})
    assert watch.told == 0


async def test_they_survive_a_restart(tmp_path: Path):
    async with Running.open(tmp_path, APP, on_disk=True) as store:
        await store.backend.environment.update({"A": "1"})
    async with Running.open(tmp_path, APP, on_disk=True) as store:
        assert await store.query("one", name="A") == "1"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"1A": "x"}, "EnvironmentVariableNameInvalid"),
        ({"": "x"}, "EnvironmentVariableNameInvalid"),
        ({"_A": "x"}, "EnvironmentVariableNameInvalid"),
        ({"A-B": "x"}, "EnvironmentVariableNameInvalid"),
        ({"A" * 257: "x"}, "EnvironmentVariableNameTooLong"),
        ({"CONVEX_SITE_URL": "x"}, "EnvironmentVariableNameForbidden"),
        ({"CONVEX_CLOUD_URL": None}, "EnvironmentVariableNameForbidden"),
        ({"A": "ü" * 4097}, "EnvironmentVariableValueTooLarge"),
        ({f"V{n}": "" for n in range(513)}, "EnvVarLimitMet"),
        ({f"V{n}": "x" * 8192 for n in range(65)}, "EnvVarTotalSizeLimitMet"),
    ],
)
async def test_what_cannot_be_a_variable_is_refused_with_all_of_its_changes(
    store: Running, changes: dict[str, str | None], code: str
):
    """V114."""
    with pytest.raises(BadRequest) as caught:
        await store.backend.environment.update({"GOOD": "1", **changes})
    assert caught.value.code == code
    assert dict(await store.backend.environment.all()) == {}
