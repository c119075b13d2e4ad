"""Lookups along references."""

from __future__ import annotations

import pytest

from reactive_store import MutationCtx, define_schema, define_table, v
from reactive_store.kit.relationships import (
    MissingDocumentError,
    get_all,
    get_all_or_throw,
    get_many_from,
    get_many_via,
    get_many_via_or_throw,
    get_one_from,
    get_one_from_or_throw,
    get_or_throw,
)
from reactive_store.testing import TestBackend

SCHEMA = define_schema(
    {
        "users": define_table({"name": v.string()}),
        "profiles": define_table({"userId": v.id("users"), "bio": v.string()})
        .index("userId", ["userId"])
        .index("by_owner", ["userId", "bio"]),
        "tags": define_table({"name": v.string()}),
        "userTags": define_table({"userId": v.id("users"), "tagId": v.id("tags")}).index(
            "by_userId", ["userId"]
        ),
    }
)


async def test_lookups():
    async def work(ctx: MutationCtx) -> None:
        db = ctx.db
        ann, bob, gone = [await db.insert("users", {"name": name}) for name in ("a", "b", "c")]
        await db.delete(gone)
        for bio in ("x", "y"):
            await db.insert("profiles", {"userId": bob, "bio": bio})
        profile = await db.insert("profiles", {"userId": ann, "bio": "z"})
        tags = [await db.insert("tags", {"name": name}) for name in "pq"]
        pairs = [await db.insert("userTags", {"userId": ann, "tagId": tag}) for tag in tags]

        assert (await get_or_throw(db, ann))["name"] == "a"
        with pytest.raises(MissingDocumentError, match=f"Could not find id {gone}"):
            await get_or_throw(db, gone)
        found = await get_all(db, [bob, gone, ann])
        assert [each and each["name"] for each in found] == ["b", None, "a"]
        assert [each["name"] for each in await get_all_or_throw(db, iter([bob, ann]))] == ["b", "a"]
        with pytest.raises(MissingDocumentError):
            await get_all_or_throw(db, [ann, gone])

        one = await get_one_from(db, "profiles", "userId", ann)
        assert one is not None
        assert one["_id"] == profile
        named = await get_one_from(db, "profiles", "by_owner", ann, "userId")
        assert named == one
        assert await get_one_from(db, "profiles", "userId", gone) is None
        with pytest.raises(Exception, match="more than one result"):
            await get_one_from(db, "profiles", "userId", bob)
        with pytest.raises(MissingDocumentError, match="a document in profiles with userId"):
            await get_one_from_or_throw(db, "profiles", "userId", gone)
        assert await get_one_from_or_throw(db, "profiles", "userId", ann) == one
        many = await get_many_from(db, "profiles", "by_owner", bob, "userId")
        assert [each["bio"] for each in many] == ["x", "y"]

        via = await get_many_via(db, "userTags", "tagId", "by_userId", ann)
        assert [each and each["name"] for each in via] == ["p", "q"]
        strict = await get_many_via_or_throw(db, "userTags", "tagId", "by_userId", ann)
        assert strict == via
        await db.delete(tags[0])
        assert (await get_many_via(db, "userTags", "tagId", "by_userId", ann))[0] is None
        with pytest.raises(MissingDocumentError, match=f"which tagId of {pairs[0]} in userTags"):
            await get_many_via_or_throw(db, "userTags", "tagId", "by_userId", ann)

    async with TestBackend(schema=SCHEMA) as t:
        await t.run(work)
