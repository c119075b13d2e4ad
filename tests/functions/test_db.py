from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reactive_store.engine.interval import EVERYTHING
from reactive_store.errors import BadRequest
from reactive_store.functions.db import DatabaseReader
from reactive_store.limits import Limits
from reactive_store.values.ids import encode_id
from reactive_store.values.value import UNSET, Id, Int64
from tests.functions.small_world import SmallWorld

UNKNOWN_TABLE = encode_id(20000, bytes(16))


@pytest.fixture
async def world() -> SmallWorld:
    return await SmallWorld.open({"users": {"by_name": ["name"]}, "messages": {}})


async def refusal(call: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        await call
    return caught.value


# ---- get ----


async def test_get_finds_documents_with_and_without_a_table(world: SmallWorld):
    (user,) = await world.insert("users", {"name": "Ada"})
    db = world.reader()
    for document in (await db.get(user), await db.get("users", user)):
        assert document is not None
        assert document["name"] == "Ada"
        assert document["_id"] == user
        assert document["_id"].table == "users"


async def test_get_gives_none_for_what_does_not_exist(world: SmallWorld):
    (user,) = await world.insert("users", {})
    tx = world.database.begin_mutation()
    writer = world.writer(tx)
    await writer.delete(user)
    await world.database.commit(tx)
    assert await world.reader().get(user) is None
    assert await world.reader().get(UNKNOWN_TABLE) is None
    assert await world.reader().get("users", UNKNOWN_TABLE) is None


async def test_a_missing_document_is_watched(world: SmallWorld):
    (user,) = await world.insert("users", {})
    tx = world.database.begin()
    await world.reader(tx=tx).get(user)
    assert await world.is_touched(tx, ("delete", user))
    assert not await world.is_touched(tx, ("insert", "users", {}))


async def test_get_refuses_what_is_no_id(world: SmallWorld):
    """V52."""
    (message,) = await world.insert("messages", {})
    db: Any = world.reader()
    for call, text in [
        (
            db.get("users", message),
            (
                'Invalid argument `id` for `db.get`: expected to be an Id<"users">, '
                'got Id<"messages"> instead.'
            ),
        ),
        (
            db.get("junk"),
            "Invalid argument `id` for `db.get`: Unable to decode ID: Invalid ID length 4",
        ),
        (
            db.get("I" * 32),
            "Invalid argument `id` for `db.get`: Unable to decode ID: ID wasn't valid base32",
        ),
        (
            db.system.get("junk"),
            "Invalid argument `id` for `db.system.get`: Unable to decode ID: Invalid ID length 4",
        ),
        (db.get(5), "Invalid argument `id` for `db.get`, expected string but got 'number': 5"),
        (
            db.get(None),
            "Invalid argument `id` for `db.get`, expected string but got 'object': null",
        ),
        (
            db.get(True),
            "Invalid argument `id` for `db.get`, expected string but got 'boolean': true",
        ),
        (
            db.get(Int64(7)),
            "Invalid argument `id` for `db.get`, expected string but got 'bigint': 7",
        ),
        (
            db.get("users", None),
            "Invalid argument `id` for `db.get`, expected string but got 'object': null",
        ),
        (
            db.get(3, message),
            "Invalid argument `table` for `db.get`, expected string but got 'number': 3",
        ),
        (
            db.get("no table", message),
            (
                "Invalid argument `table` for `db.get`: Identifier no table has invalid character "
                "' ': Identifiers can only contain alphanumeric characters or underscores"
            ),
        ),
    ]:
        assert (await refusal(call)).message == text
    with pytest.raises(TypeError, match="Must provide arg 1 `id` to `get`"):
        await db.get()


# ---- system tables ----


async def stored_file(world: SmallWorld) -> Id:
    tx = world.database.begin_mutation()
    storage_id = tx.insert("_storage", {"sha256": "x", "size": 1, "contentType": None})
    await world.database.commit(tx)
    return storage_id


async def test_system_tables_are_read_through_db_system(world: SmallWorld):
    file = await stored_file(world)
    db = world.reader()
    document = await db.system.get(file)
    assert document is not None
    assert document["size"] == 1
    assert [d["_id"] for d in await db.system.query("_storage").collect()] == [file]
    assert await db.system.query("_scheduled_functions").collect() == []
    assert db.system.normalize_id("_storage", file) == file


async def test_each_reader_shows_its_own_side_only(world: SmallWorld):
    """V54."""
    file = await stored_file(world)
    (user,) = await world.insert("users", {})
    db = world.reader()
    only_system = "System tables can only be accessed with db.system."
    assert (await refusal(db.get(file))).message == only_system
    assert (await refusal(db.get("_storage", file))).message == only_system
    error = await refusal(db.system.get(user))
    assert error.message == "User tables cannot be accessed with db.system."
    assert error.code == "SystemTableError"
    for build, text in [
        (
            lambda: db.query("_storage"),
            "System tables can only be accessed from db.system.query().",
        ),
        (
            lambda: db.system.query("users"),
            "User tables can only be accessed from db.query().",
        ),
        (
            lambda: db.normalize_id("_storage", file),
            "System tables can only be accessed from db.system.normalizeId().",
        ),
        (
            lambda: db.system.normalize_id("users", user),
            "User tables can only be accessed from db.normalizeId().",
        ),
        (lambda: db.system.query("_tables"), 'There is no system table "_tables".'),
        (
            lambda: db.query(None),  # type: ignore[arg-type]
            "Invalid argument `table` for `db.query`, expected string but got 'object': null",
        ),
    ]:
        with pytest.raises(BadRequest) as caught:
            build()
        assert caught.value.message == text


async def test_other_tables_of_ours_stay_invisible(world: SmallWorld):
    tx = world.database.begin()
    row = tx.scan("_schemas", "by_creation_time", EVERYTHING).next()
    assert row is not None
    private = encode_id(515, row.id)
    assert await world.reader().system.get(private) is None
    assert world.reader().system.normalize_id("_schemas", private) is None
    with pytest.raises(BadRequest, match="can only be accessed with"):
        await world.reader().get(private)


# ---- normalize_id ----


async def test_normalize_id_recognises_ids_of_the_table(world: SmallWorld):
    """V51."""
    (user,) = await world.insert("users", {})
    db = world.reader()
    found = db.normalize_id("users", user)
    assert found == user
    assert isinstance(found, Id)
    assert found.table == "users"
    assert db.normalize_id("messages", user) is None
    assert db.normalize_id("users", "junk") is None
    assert db.normalize_id("users", "é" * 11) is None
    assert db.normalize_id("users", "") is None
    assert db.normalize_id("nope", user) is None
    with pytest.raises(BadRequest) as caught:
        db.normalize_id("no table", user)
    assert caught.value.message.startswith("Invalid argument `table` for `db.normalizeId`: Identi")
    with pytest.raises(
        BadRequest, match=r"for `db\.normalizeId`, expected string but got 'number'"
    ):
        db.normalize_id("users", 5)  # type: ignore[arg-type]


VECTORS = json.loads(
    (Path(__file__).parent.parent / "conformance" / "vectors" / "ids.json").read_text("utf-8")
)


@pytest.mark.parametrize("case", VECTORS["normalize"], ids=lambda case: case["note"])
def test_normalize_id_agrees_with_the_vectors(case: dict[str, Any]):
    class Tables:
        def table_number(self, name: str) -> int | None:
            return case["table_number"] if name == case["table"] else None

    db: Any = DatabaseReader(Tables(), None, cursors=None)  # type: ignore[arg-type]
    if case["table"].startswith("_"):
        db = db.system
    assert db.normalize_id(case["table"], case["id_string"]) == case["result"]


# ---- writes ----


async def test_a_mutation_sees_its_own_writes(world: SmallWorld):
    db = world.writer()
    user = await db.insert("users", {"name": "Ada", "tags": ("x",), "gone": UNSET})
    assert user.table == "users"
    document = await db.get(user)
    assert document is not None
    assert {k: v for k, v in document.items() if k[0] != "_"} == {"name": "Ada", "tags": ["x"]}
    assert await db.patch(user, {"name": "Grace", "tags": UNSET, "o": {"a": 1}}) is None
    assert (await db.query("users").with_index("by_name", name="Ada").collect()) == []
    assert await db.patch("users", user, {"o": {"b": 2}}) is None
    patched = await db.get(user)
    assert patched is not None
    assert {k: v for k, v in patched.items() if k[0] != "_"} == {"name": "Grace", "o": {"b": 2}}
    assert await db.replace(user, {"x": None}) is None
    replaced = await db.get(user)
    assert replaced == {
        "_id": user, "_creationTime": document["_creationTime"], "x": None,
    }  # fmt: skip
    assert await db.replace("users", user, {**replaced, "x": 1}) is None
    assert await db.delete("users", user) is None
    assert await db.get(user) is None
    assert await world.reader().query("users").collect() == []


async def test_system_fields_may_come_back_unchanged(world: SmallWorld):
    """V42."""
    (user,) = await world.insert("users", {"name": "Ada"})
    db = world.writer()
    document = await db.get(user)
    assert document is not None
    await db.replace(user, document | {"name": "Grace"})
    await db.patch(user, {**document, "name": "Joan"})
    await db.patch(user, {"_id": UNSET, "_creationTime": UNSET})
    stored = await db.get(user)
    assert stored == {**document, "name": "Joan"}


async def test_a_write_that_changes_nothing_is_no_write(world: SmallWorld):
    (user,) = await world.insert("users", {"name": "Ada"})
    tx = world.database.begin()
    await world.reader(tx=tx).get(user)
    assert not await world.is_touched(tx, ("patch", user, {"name": "Ada"}))
    assert await world.is_touched(tx, ("patch", user, {"name": "Grace"}))


async def test_a_new_table_comes_into_being_with_its_first_document(world: SmallWorld):
    db = world.writer()
    made = await db.insert("made_up", {"n": 1})
    assert db.normalize_id("made_up", made) == made
    assert [d["n"] for d in await db.query("made_up").collect()] == [1]


async def test_insert_refuses(world: SmallWorld):
    """V28, V41, V43, V44."""
    db: Any = world.writer()
    for call, text in [
        (db.insert("_storage", {}), "System tables (prefixed with `_`) are read-only."),
        (
            db.insert(None, {}),
            "Invalid argument `table` for `db.insert`, expected string but got 'object': null",
        ),
        (
            db.insert("bad name", {}),
            (
                "Invalid argument `table` for `db.insert`: Identifier bad name has invalid "
                "character ' ': Identifiers can only contain alphanumeric characters or underscores"
            ),
        ),
        (
            db.insert("bad name", {"$x": 1}),
            (
                "Invalid argument `value` for `db.insert`: Field name $x starts with '$', which is "
                "reserved."
            ),
        ),
        (
            db.insert("users", [1]),
            "Invalid argument `value` for `db.insert`: Value must be an Object",
        ),
        (
            db.insert("users", {"_x": 1}),
            (
                "isn't a valid document: Field '_x' starts with an underscore, which is only "
                "allowed for system fields like '_id'"
            ),
        ),
        (db.insert("users", {"_id": "x"}), "doesn't match '_id' field \"x\""),
        (
            db.insert("users", {"_creationTime": 1}),
            "doesn't match '_creationTime' field in {_creationTime: 1.0}",
        ),
        (
            db.insert("users", {"a": [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}),
            "Document is too nested (nested 17 levels deep > maximum nesting 16)",
        ),
    ]:
        assert text in (await refusal(call)).message
    for call, text in [
        (db.insert(), "Must provide arg 1 `table` to `insert`"),
        (db.insert("users"), "Must provide arg 2 `value` to `insert`"),
    ]:
        with pytest.raises(TypeError, match=text):
            await call


@pytest.mark.parametrize("method", ["patch", "replace", "delete"])
async def test_writes_to_a_document_refuse_ids_that_do_not_fit(world: SmallWorld, method: str):
    """V52, V53, V54."""
    (user,) = await world.insert("users", {})
    (message,) = await world.insert("messages", {})
    file = await stored_file(world)
    db = world.writer()
    await db.delete(message)

    def call(*arguments: Any) -> Any:
        values = () if method == "delete" else ({},)
        return getattr(db, method)(*arguments, *values)

    wrapper = f"Invalid argument `id` for `db.{method}`"
    verb = {"patch": "Update", "replace": "Replace", "delete": "Delete"}[method]
    read_only = "System tables (prefixed with `_`) are read-only."
    for attempt, text in [
        (call("junk"), f"{wrapper}: Unable to decode ID: Invalid ID length 4"),
        (call(5), f"{wrapper}, expected string but got 'number': 5"),
        (call(UNKNOWN_TABLE), f'{wrapper}: Table for ID "{UNKNOWN_TABLE}" not found'),
        (
            call("messages", user),
            f'{wrapper}: expected to be an Id<"messages">, got Id<"users"> instead.',
        ),
        (call(message), f"{verb} on nonexistent document ID {message}"),
        (call(file), read_only),
        (call("_storage", file), read_only),
    ]:
        assert (await refusal(attempt)).message == text
    with pytest.raises(TypeError, match=f"Must provide arg 1 `id` to `{method}`"):
        await getattr(db, method)()


@pytest.mark.parametrize("method", ["patch", "replace"])
async def test_changes_must_be_objects(world: SmallWorld, method: str):
    """V41, V44."""
    (user,) = await world.insert("users", {})
    db: Any = world.writer()
    for value in (None, "text", 5, [1], b"x"):
        error = await refusal(getattr(db, method)(user, value))
        assert (
            error.message == f"Invalid argument `value` for `db.{method}`: Value must be an Object"
        )
    error = await refusal(getattr(db, method)(user, {"é": 1}))
    assert error.message.startswith(f"Invalid argument `value` for `db.{method}`: Field name é has")
    error = await refusal(getattr(db, method)(user, {"_id": "other"}))
    assert error.message == f'Provided document ID "{user}" doesn\'t match \'_id\' field "other"'
    with pytest.raises(TypeError, match=f"Must provide arg 2 `value` to `{method}`"):
        await getattr(db, method)(user)


async def test_a_patch_may_not_remove_a_field_with_an_impossible_name(world: SmallWorld):
    (user,) = await world.insert("users", {})
    error = await refusal(world.writer().patch(user, {"$x": UNSET}))
    assert error.message.startswith("Invalid argument `value` for `db.patch`: Field name $x starts")


async def test_documents_are_checked_for_size(world: SmallWorld):
    error = await refusal(world.writer().insert("users", {"a": "x" * (1 << 20)}))
    assert error.message.startswith("Value is too large (1.00 MiB > maximum size 1 MiB)")


async def test_writes_are_counted_every_time():
    """V110."""
    world = await SmallWorld.open({"t": {}}, limits=Limits(written_documents=3))
    db = world.writer()
    made = await db.insert("t", {"n": 0})
    await db.patch(made, {"n": 1})
    await db.patch(made, {"n": 2})
    assert "Too many writes" in (await refusal(db.patch(made, {"n": 3}))).message
