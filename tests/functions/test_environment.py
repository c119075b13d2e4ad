"""Environment variables: read by name, changed together, live."""

from __future__ import annotations

from pathlib import Path

import pytest

from reactive_store.errors import BadRequest
from tests.functions.running import FailedCall, Running

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
    assert await store.query("everything") == {"A": "1", "B": "2"}
    await environment.update({"A": "3", "B": None, "NEVER": None})
    assert dict(await environment.all()) == {"A": "3"}
    assert await store.query("has", name="A") == [True, 1, "Environment(…)"]
    assert await store.query("has", name="B") == [False, 1, "Environment(…)"]


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
    with pytest.raises(BadRequest) as caught:
        await store.backend.environment.update({"GOOD": "1", **changes})
    assert caught.value.code == code
    assert dict(await store.backend.environment.all()) == {}
