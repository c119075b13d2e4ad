"""`ctx.vector_search`: what it finds, what it refuses and in which words."""

from __future__ import annotations

import re
import struct
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reactive_store import UNSET, Int64
from reactive_store.limits import Limits
from reactive_store.values.value import Id
from tests.functions.running import INLINE, FailedCall, Running, write_app

ROOT = Path(__file__).resolve().parents[2]

SCHEMA = """
schema = define_schema({
    "foods": define_table(v.any())
        .vector_index("by_e", vector_field="e", dimensions=2, filter_fields=["kind", "origin.land"])
        .vector_index("later", vector_field="e", dimensions=3, staged=True),
    "empty": define_table(v.any()).vector_index("by_e", vector_field="e", dimensions=2),
}, schema_validation=False)
"""

MODULE = """
@mutation
async def add(ctx, food: Any):
    return await ctx.db.insert("foods", food)

@mutation
async def change(ctx, id: Id["foods"], fields: Any):
    await ctx.db.patch(id, fields)

@mutation
async def remove(ctx, id: Id["foods"]):
    await ctx.db.delete(id)

@query
async def read(ctx, id: Id["foods"]):
    return await ctx.db.get(id)

@action
async def near(ctx, vector: list[float], limit: int = 10):
    return await ctx.vector_search("foods", "by_e", vector=vector, limit=limit)

@action
async def add_and_find(ctx, food: Any):
    made = await ctx.run_mutation("m:add", food=food)
    found = await ctx.vector_search("foods", "by_e", vector=food["e"], limit=1)
    return [made, found]
"""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Running]:
    modules = {"m": "from typing import Any\n" + MODULE, "inline": INLINE}
    async with Running.open(tmp_path, modules, schema=SCHEMA) as running:
        yield running


async def search(store: Running, *, table: str = "foods", index: str = "by_e", **query: Any) -> Any:
    async def body(ctx: Any) -> Any:
        return await ctx.vector_search(table, index, **query)

    return await store.acts(body)


async def ids(store: Running, **query: Any) -> set[str]:
    return {found["_id"] for found in await search(store, vector=[1, 1], **query)}


def as_float32(number: float) -> float:
    return struct.unpack("f", struct.pack("f", number))[0]


async def test_results_are_ids_and_scores_by_falling_cosine(store: Running):
    """F161."""
    vectors = {"same": [2, 0], "near": [1, 1], "right": [0, 5], "far": [-3, 0]}
    made = {name: await store.mutation("add", food={"e": e}) for name, e in vectors.items()}
    found = await search(store, vector=[10, 0])
    assert found == [
        {"_id": made["same"], "_score": 1},
        {"_id": made["near"], "_score": pytest.approx(0.5**0.5)},
        {"_id": made["right"], "_score": 0},
        {"_id": made["far"], "_score": -1},
    ]
    assert found[1]["_score"] == as_float32(found[1]["_score"])


async def test_ten_are_found_unless_told_and_256_at_most(store: Running):
    """F161."""
    made = [await store.mutation("add", food={"e": [1, 1]}) for _ in range(260)]
    found = await search(store, vector=[1, 1])
    # Equal scores: by falling id.
    assert [each["_id"] for each in found] == sorted(made, reverse=True)[:10]
    assert len(await search(store, vector=[1, 1], limit=256)) == 256
    assert len(await search(store, vector=[1, 1], limit=1)) == 1


async def test_handlers_get_ids_that_know_their_table(store: Running):
    await store.mutation("add", food={"e": [1, 1]})
    seen: list[Any] = []

    async def body(ctx: Any) -> None:
        seen.extend(await ctx.vector_search("foods", "by_e", vector=np.array([1.0, 1.0])))
        seen.extend(await ctx.vector_search("foods", "by_e", vector=(1, 1)))

    await store.acts(body)
    assert [(type(each["_id"]), each["_id"].table) for each in seen] == [(Id, "foods")] * 2


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"limit": 257}, "Vector queries can fetch at most 256 results, requested 257."),
        ({"limit": 0}, "Vector queries fetch at least 1 result, requested 0."),
        ({"limit": 2.5}, "limit is a whole number, not 2.5"),
        ({"limit": True}, "limit is a whole number, not True"),
        ({"vector": [1, 2, 3]}, "Expected a vector with dimensions 2, received 3."),
        ({"vector": []}, "`vector` must be a non-empty Array in vectorSearch"),
        ({"vector": "12"}, "`vector` must be a non-empty Array in vectorSearch"),
        ({"vector": None}, "`vector` must be a non-empty Array in vectorSearch"),
        ({"vector": [1, "2"]}, '`vector` must hold numbers in vectorSearch, not "2"'),
        ({"vector": [True, 1]}, "`vector` must hold numbers in vectorSearch, not true"),
        ({"vector": [1, float("nan")]}, "`vector` must hold finite numbers in vectorSearch"),
        ({"index": "none"}, "Index foods.none not found."),
        ({"index": "by_creation_time"}, "Index foods.by_creation_time not found."),
        (
            {"index": "later"},
            "Index foods.later is currently staged and not available to query until it is enabled.",
        ),
        ({"filter": lambda f: True}, "Filters should be a combination of `q.eq` and `q.or`."),
        (
            {"filter": lambda f: f.or_(f.or_(f.eq("kind", 1)))},
            "Filters should be a combination of `q.eq` and `q.or`.",
        ),
        (
            {"filter": lambda f: f.or_(True)},
            "Filters should be a combination of `q.eq` and `q.or`.",
        ),
        ({"filter": {"kind": 1}}, "a filter is a function such as lambda f: f.eq(…), not"),
        ({"filter": lambda f: f.eq(5, 1)}, "a field's path is a string, not 5"),
        (
            {"filter": lambda f: f.eq("price", 1)},
            (
                'Vector query against foods.by_e contains a filter on "price" but that field '
                "isn't indexed for filtering in `filterFields`."
            ),
        ),
        (
            {"filter": lambda f: f.or_(*(f.eq("kind", n) for n in range(65)))},
            "Vector query against foods.by_e has too many conditions. Max: 64 Actual: 65",
        ),
    ],
)
async def test_what_is_refused_is_named(store: Running, query: dict[str, Any], text: str):
    """F161, F162: 257 results, a wrong dimension, an empty vector, an undeclared filter field."""
    with pytest.raises(FailedCall) as caught:
        await search(store, **{"vector": [1, 1], **query})
    assert text in str(caught.value)


async def test_limits_are_those_of_the_deployment(tmp_path: Path):
    limits = replace(Limits(), vector_results=3, vector_filters=1)
    modules = {"inline": INLINE}
    async with Running.open(tmp_path, modules, schema=SCHEMA, limits=limits) as store:
        with pytest.raises(FailedCall, match="at most 3 results, requested 10"):
            await search(store, vector=[1, 1])
        with pytest.raises(FailedCall, match="Max: 1 Actual: 2"):
            await search(
                store,
                vector=[1, 1],
                limit=1,
                filter=lambda f: f.or_(f.eq("kind", 1), f.eq("kind", 2)),
            )


async def test_there_is_nothing_in_a_table_that_does_not_exist(store: Running):
    assert await search(store, table="nothing", vector=[1, 1]) == []
    assert await search(store, table="empty", vector=[1, 1]) == []


async def test_filters_are_equalities_or_a_union_of_them(store: Running):
    """F162."""
    foods = {
        "a": {"kind": "soup", "origin": {"land": "th"}},
        "b": {"kind": "soup", "origin": {"land": "la"}},
        "c": {"kind": "rice", "origin": {"land": "la"}},
        "d": {"kind": "rice"},
        "e": {},
    }
    made = {
        name: await store.mutation("add", food={"e": [1, n], **food})
        for n, (name, food) in enumerate(foods.items())
    }

    async def names(build: Any) -> str:
        found = await ids(store, filter=build)
        return "".join(name for name, each in made.items() if each in found)

    assert await names(lambda f: f.eq("kind", "soup")) == "ab"
    assert await names(lambda f: f.eq("origin.land", "la")) == "bc"
    assert await names(lambda f: f.or_(f.eq("kind", "soup"), f.eq("origin.land", "la"))) == "abc"
    assert await names(lambda f: f.or_(f.eq("kind", "rice"), f.eq("kind", "soup"))) == "abcd"
    assert await names(lambda f: f.or_(f.eq("kind", "tea"))) == ""
    assert await names(lambda f: f.or_()) == ""
    # A missing field is a value like others, and null is not it.
    assert await names(lambda f: f.eq("kind", UNSET)) == "e"
    assert await names(lambda f: f.eq("origin.land", UNSET)) == "de"
    assert await names(lambda f: f.eq("kind", None)) == ""


async def test_filter_values_are_equal_as_they_are_everywhere(store: Running):
    values = [1, Int64(1), True, "1", -0.0, 0, None, [1], {"a": 1}, b"1", "x" * 5000]
    made = [await store.mutation("add", food={"e": [1, 1], "kind": value}) for value in values]
    for value, one in zip(values, made, strict=True):
        assert await ids(store, filter=lambda f, value=value: f.eq("kind", value)) == {one}
    assert await ids(store, filter=lambda f: f.eq("kind", 1.0)) == {made[0]}
    assert await ids(store, filter=lambda f: f.eq("kind", "x" * 4999)) == set()


async def test_a_vector_of_another_length_is_stored_and_never_found(store: Running):
    """Stored, but never returned (F163)."""
    made = await store.mutation("add", food={"e": [1, 1, 1]})
    assert await ids(store) == set()
    assert (await store.query("read", id=made))["e"] == [1, 1, 1]
    await store.mutation("change", id=made, fields={"e": [1, 1]})
    assert await ids(store) == {made}
    await store.mutation("change", id=made, fields={"kind": "soup"})
    assert await ids(store, filter=lambda f: f.eq("kind", "soup")) == {made}
    await store.mutation("change", id=made, fields={"e": [1]})
    assert await ids(store) == set()


async def test_an_action_finds_what_its_mutation_has_just_written(store: Running):
    """In the same action, right after the commit (F164)."""
    for number in range(50):
        made, found = await store.action("add_and_find", food={"e": [1, number]})
        assert [(each["_id"], each["_score"]) for each in found] == [(made, pytest.approx(1))]
    await store.mutation("remove", id=made)
    assert made not in await ids(store)


async def test_only_actions_search_vectors(store: Running):
    """Queries and mutations have no `vector_search`."""

    async def body(ctx: Any) -> bool:
        return hasattr(ctx, "vector_search")

    assert await store.acts(body) is True
    assert await store.reads(body) is False
    assert await store.writes(body) is False


async def test_a_search_that_is_not_awaited_is_refused(store: Running):
    async def body(ctx: Any) -> None:
        ctx.vector_search("foods", "by_e", vector=[1, 1])

    with pytest.raises(FailedCall, match="`vector_search"):
        await store.acts(body)


async def test_arguments_of_a_client_arrive_as_vectors(store: Running):
    await store.mutation("add", food={"e": [1, 2]})
    assert len(await store.action("near", vector=[1, 2], limit=3)) == 1


async def test_the_app_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = (ROOT / "docs" / "guide" / "search.md").read_text(encoding="utf-8")
    section = text.partition("## Vector search\n")[2]
    blocks = re.findall(r"^```python\n# (\S+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in blocks] == ["schema.py", "functions/foods.py", "test_foods.py"]
    for name, body in blocks:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(body, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(blocks[2][1], "test_foods.py", "exec"), names)
    await names["test_the_nearest_comes_first"]()


async def test_a_push_has_new_indexes_built_before_its_code_is_in_force(tmp_path: Path):
    plain = 'schema = define_schema({"foods": define_table(v.any())})'
    modules = {"m": "from typing import Any\n" + MODULE, "inline": INLINE}
    async with Running.open(tmp_path, modules, schema=plain) as store:
        for number in range(30):
            await store.mutation("add", food={"e": [1, number]})
        await store.backend.reload(write_app(tmp_path, modules, SCHEMA))
        built = {(each.table, each.name): each for each in store.database.vectors.states()}
        assert built["foods", "by_e"].is_built
        assert built["foods", "by_e"].documents == 30
        assert len(await store.action("near", vector=[1, 1], limit=256)) == 30
