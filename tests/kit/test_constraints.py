"""Unique fields, defaults and references."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from reactive_store import (
    UNSET,
    ConvexError,
    Id,
    MutationCtx,
    define_schema,
    define_table,
    v,
)
from reactive_store.kit.constraints import Constraints, OnDelete
from reactive_store.kit.rules import Rules
from reactive_store.kit.triggers import Change, Triggers
from reactive_store.testing import Sequencer, TestBackend

SCHEMA = define_schema(
    {
        "users": define_table(
            {
                "email": v.optional(v.nullable(v.string())),
                "team": v.string(),
                "name": v.string(),
                "role": v.optional(v.string()),
                "since": v.optional(v.number()),
            }
        )
        .index("by_email", ["email"])
        .index("by_name_team", ["name", "team", "since"]),
        "posts": define_table(
            {"author": v.id("users"), "editor": v.optional(v.id("users")), "text": v.string()}
        )
        .index("by_author", ["author"])
        .index("by_editor", ["editor"]),
        "likes": define_table(
            {"post": v.nullable(v.id("posts")), "by": v.optional(v.id("users"))}
        ).index("by_post", ["post"]),
        "nodes": define_table({"parent": v.nullable(v.id("nodes"))}).index("by_parent", ["parent"]),
    }
)


@dataclass
class User:
    name: str
    team: str
    email: str


def ann(**fields: Any) -> dict[str, Any]:
    return {"name": "Ann", "team": "red", **fields}


def unique_users() -> Constraints:
    constraints = Constraints(SCHEMA)
    constraints.unique("users", "email")
    constraints.unique("users", "team", "name")
    return constraints


async def refused(write: Any) -> dict[str, Any]:
    with pytest.raises(ConvexError) as caught:
        await write
    data: dict[str, Any] = caught.value.data
    return data


async def run(work: Any) -> Any:
    async with TestBackend(schema=SCHEMA) as t:
        return await t.run(work)


async def test_no_two_documents_have_the_same_unique_values():
    constraints = unique_users()

    async def work(ctx: MutationCtx) -> None:
        db = constraints.enforce(ctx).db
        first = await db.insert("users", ann(email="a@x"))
        data = await refused(db.insert("users", ann(name="Bo", email="a@x")))
        assert data == {
            "code": "not_unique",
            "message": "There is another document in users with the same email",
            "table": "users",
            "fields": ["email"],
        }
        data = await refused(db.insert("users", ann(email="b@x")))
        assert data["fields"] == ["name", "team"]
        await db.insert("users", ann(team="blue", email="b@x"))
        await refused(db.patch(first, {"email": "b@x"}))
        await refused(db.replace(first, ann(email="b@x")))
        await refused(db.insert("users", User("Cy", "red", "b@x")))
        # What stays as it is, or changes elsewhere, is no matter.
        await db.patch(first, {"email": "a@x", "role": "boss"})
        await db.patch(first, {"email": "c@x"})
        await db.insert("users", User("Cy", "red", "a@x"))
        stored = await ctx.db.query("users").collect()
        assert [user["email"] for user in stored] == ["c@x", "b@x", "a@x"]
        await db.delete(first)
        await db.insert("users", ann(email="c@x"))

    await run(work)


async def test_a_value_that_is_missing_or_null_is_no_double():
    constraints = unique_users()

    async def work(ctx: MutationCtx) -> None:
        db = constraints.enforce(ctx).db
        for number, email in enumerate([{}, {}, {"email": None}, {"email": None}]):
            await db.insert("users", {"name": str(number), "team": "red", **email})
        first = await db.insert("users", {"name": "e", "team": "red", "email": "e@x"})
        await db.patch(first, {"email": UNSET})
        await db.insert("users", {"name": "f", "team": "red", "email": "e@x"})

    await run(work)


async def test_of_mutations_that_store_one_value_at_once_one_succeeds():
    constraints = unique_users()

    async with TestBackend(schema=SCHEMA) as t:

        async def sign_up(number: int) -> str:
            async def work(ctx: MutationCtx) -> None:
                db = constraints.enforce(ctx).db
                await db.insert("users", {"name": str(number), "team": "red", "email": "a@x"})
                await asyncio.sleep(0)  # all of them stand here before any commits

            try:
                await t.run(work)
            except ConvexError as error:
                return str(error.data["code"])
            return "stored"

        answers = await asyncio.gather(*(sign_up(number) for number in range(12)))
        assert sorted(answers) == ["not_unique"] * 11 + ["stored"]

        async def count(ctx: MutationCtx) -> int:
            return len(await ctx.db.query("users").collect())

        assert await t.run(count) == 1


async def test_the_one_that_looked_first_and_commits_last_runs_again():
    constraints = unique_users()
    order = Sequencer()
    attempts = 0

    async def slow(ctx: MutationCtx) -> None:
        nonlocal attempts
        attempts += 1
        db = constraints.enforce(ctx).db
        await db.insert("users", ann(email="a@x"))
        if attempts == 1:
            async with order(0):
                pass
            async with order(2):
                pass

    async def fast(ctx: MutationCtx) -> None:
        await constraints.enforce(ctx).db.insert("users", ann(name="Bo", email="a@x"))

    async with TestBackend(schema=SCHEMA) as t:
        first = asyncio.create_task(t.run(slow))
        async with order(1):
            await t.run(fast)
        assert (await refused(first))["code"] == "not_unique"
        assert attempts == 2


async def test_defaults_fill_what_an_insert_leaves_out():
    constraints = Constraints(SCHEMA)
    constraints.defaults("users", role="member", since=lambda ctx: ctx.now)

    async def work(ctx: MutationCtx) -> None:
        db = constraints.enforce(ctx).db
        plain = await ctx.db.get(await db.insert("users", ann()))
        assert plain is not None
        assert (plain["role"], plain["since"]) == ("member", ctx.now)
        given = await ctx.db.get(await db.insert("users", ann(role="boss", since=UNSET)))
        assert given is not None
        assert (given["role"], given["since"]) == ("boss", ctx.now)
        with pytest.raises(TypeError, match="pass a dict, not User"):
            await db.insert("users", User("Cy", "red", "a@x"))

    await run(work)


def referring(on_delete: OnDelete = "restrict", field: str = "author") -> Constraints:
    constraints = Constraints(SCHEMA)
    constraints.reference("posts", field, on_delete=on_delete)
    return constraints


async def test_a_reference_names_a_document_that_exists():
    constraints = referring()

    async def work(ctx: MutationCtx) -> None:
        db = constraints.enforce(ctx).db
        user, gone = [await ctx.db.insert("users", ann()) for _ in range(2)]
        await ctx.db.delete(gone)
        data = await refused(db.insert("posts", {"author": gone, "text": ""}))
        assert (data["code"], data["fields"]) == ("missing_reference", ["author"])
        post = await db.insert("posts", {"author": user, "text": ""})
        await refused(db.patch(post, {"author": gone}))
        await ctx.db.patch(post, {"author": gone})
        await db.patch(post, {"text": "what does not change is not looked at"})
        assert len(await ctx.db.query("posts").collect()) == 1

    await run(work)


async def test_restrict_refuses_to_delete_what_is_named():
    constraints = referring()

    async def work(ctx: MutationCtx) -> None:
        db = constraints.enforce(ctx).db
        user = await db.insert("users", ann())
        post = await db.insert("posts", {"author": user, "text": ""})
        assert (await refused(db.delete(user)))["code"] == "still_referenced"
        assert await ctx.db.get(user) is not None
        await db.delete(post)
        await db.delete(user)

    await run(work)


async def test_cascade_deletes_what_names_it_and_what_names_that():
    constraints = referring("cascade")
    constraints.reference("likes", "post", on_delete="cascade")

    async def work(ctx: MutationCtx) -> None:
        db = constraints.enforce(ctx).db
        user, other = await db.insert("users", ann()), await db.insert("users", ann())
        for author in (user, user, other):
            post = await db.insert("posts", {"author": author, "text": ""})
            await db.insert("likes", {"post": post})
        await db.delete("users", user)
        (left,) = await ctx.db.query("posts").collect()
        assert left["author"] == other
        assert [like["post"] for like in await ctx.db.query("likes").collect()] == [left["_id"]]

    await run(work)


async def test_a_refusal_further_down_undoes_the_whole_delete():
    constraints = referring("cascade")
    constraints.reference("likes", "post", on_delete="restrict")

    async def work(ctx: MutationCtx) -> None:
        db = constraints.enforce(ctx).db
        user = await db.insert("users", ann())
        posts = [await db.insert("posts", {"author": user, "text": t}) for t in "ab"]
        await db.insert("likes", {"post": posts[1]})
        await refused(db.delete(user))
        assert len(await ctx.db.query("posts").collect()) == 2
        assert await ctx.db.get(user) is not None

    await run(work)


async def test_a_circle_of_cascades_comes_to_an_end():
    constraints = Constraints(SCHEMA)
    constraints.reference("nodes", "parent", on_delete="cascade")

    async def work(ctx: MutationCtx) -> None:
        db = constraints.enforce(ctx).db
        first = await db.insert("nodes", {"parent": None})
        second = await db.insert("nodes", {"parent": first})
        await db.patch(first, {"parent": second})
        itself = await db.insert("nodes", {"parent": second})
        await db.patch(itself, {"parent": itself})
        await db.delete(itself)
        await db.delete(second)
        assert await ctx.db.query("nodes").collect() == []

    await run(work)


async def test_set_null_leaves_the_document_without_the_reference():
    constraints = referring("set_null", "editor")
    constraints.reference("likes", "post", on_delete="set_null")

    async def work(ctx: MutationCtx) -> None:
        db = constraints.enforce(ctx).db
        user, editor = await db.insert("users", ann()), await db.insert("users", ann())
        post = await db.insert("posts", {"author": user, "editor": editor, "text": ""})
        like = await db.insert("likes", {"post": post})
        await db.delete(editor)
        found = await ctx.db.get(post)
        assert found is not None
        assert "editor" not in found
        await db.delete(post)
        left = await ctx.db.get(like)
        assert left is not None
        assert left["post"] is None

    await run(work)


async def test_constraints_stand_between_rules_and_triggers():
    constraints = referring("cascade")
    constraints.unique("users", "email")
    triggers = Triggers[MutationCtx]()
    rules = Rules[MutationCtx]()
    gone: list[str] = []

    @triggers.on("posts")
    async def note(ctx: MutationCtx, change: Change) -> None:
        if change.old is not None and change.new is None:
            gone.append(change.old["text"])

    rules.read("users")(lambda _ctx, user: user["team"] != "hidden")

    async def work(ctx: MutationCtx) -> None:
        db = rules.guard(constraints.enforce(triggers.watch(ctx))).db
        await db.insert("users", ann(team="hidden", email="a@x"))
        await refused(db.insert("users", ann(email="a@x")))  # though it cannot be seen
        user = await db.insert("users", ann(email="b@x"))
        await db.insert("posts", {"author": user, "text": "p"})
        await db.delete(user)
        assert gone == ["p"]  # the cascade started the trigger
        wrong = constraints.enforce(rules.guard(ctx)).db
        with pytest.raises(TypeError, match="put rules around constraints"):
            await wrong.insert("users", ann(team="hidden"))

    await run(work)


@pytest.mark.parametrize(
    ("declare", "text"),
    [
        (lambda c: c.unique("users"), "name the fields"),
        (lambda c: c.unique("users", "team"), r'add \.index\("by_team", \["team"\]\)'),
        (lambda c: c.unique("users", "a.b"), "top-level fields"),
        (lambda c: c.unique("nobody", "x"), "there is no table 'nobody' in the schema"),
        (lambda c: c.defaults("nobody", x=1), "there is no table"),
        (lambda c: c.reference("posts", "text"), "posts.text is no id of one table"),
        (lambda c: c.reference("posts", "nothing"), "posts.nothing is not declared"),
        (lambda c: c.reference("likes", "by"), "no index that begins with by"),
        (lambda c: c.reference("posts", "author", on_delete="set_null"), "neither null nor absent"),
        (lambda c: c.reference("posts", "author", on_delete="ignore"), "on_delete is"),
    ],
)
def test_what_cannot_be_enforced_is_refused_when_declared(declare, text):
    with pytest.raises(TypeError, match=text):
        declare(Constraints(SCHEMA))


async def test_a_document_that_is_not_there_is_refused_as_ever():
    constraints = unique_users()

    async def work(ctx: MutationCtx) -> None:
        db = constraints.enforce(ctx).db
        user: Id = await db.insert("users", ann())
        await db.delete(user)
        for write in (db.patch(user, {"name": "x"}), db.delete(user)):
            with pytest.raises(Exception, match="nonexistent document"):
                await write

    await run(work)
