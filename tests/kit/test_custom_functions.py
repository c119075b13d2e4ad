"""Decorators of an app's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reactive_store import (
    ConvexError,
    MutationCtx,
    QueryCtx,
    define_schema,
    define_table,
    v,
)
from reactive_store.kit.custom_functions import custom_query
from reactive_store.testing import FunctionError, TestBackend
from tests.typing.test_author_program import CHECKERS

SCHEMA = define_schema(
    {
        "users": define_table({"name": v.string(), "token": v.string()}).index(
            "by_token", ["token"]
        ),
        "audit": define_table({"text": v.string()}),
    }
)

BUILDERS = """
from __future__ import annotations

from reactive_store import (
    ActionCtx, ConvexError, Document, Id, MutationCtx, QueryCtx, internal_mutation, internal_query,
    mutation,
)
from reactive_store.kit.custom_functions import (
    Customized, custom_action, custom_function, custom_mutation, custom_query,
)


class UserCtx(QueryCtx):
    user: Document


class UserMutationCtx(MutationCtx):
    user: Document


class TokenCtx(ActionCtx):
    token: str


async def found(ctx: QueryCtx, token: str) -> Document:
    user = await ctx.db.query("users").with_index("by_token", token=token).unique()
    if user is None:
        raise ConvexError("unauthenticated")
    return user


async def with_user(ctx: QueryCtx, access_token: str) -> UserCtx:
    return UserCtx.extend(ctx, user=await found(ctx, access_token))


async def with_audit(
    ctx: MutationCtx, access_token: str, note: str = "none"
) -> Customized[UserMutationCtx]:
    user = await found(ctx, access_token)

    async def on_success(result: object) -> None:
        if result == "refuse":
            raise ConvexError("refused at the end")
        await ctx.db.insert("audit", {"text": f"{user['name']} {result} {note}"})

    return Customized(
        UserMutationCtx.extend(ctx, user=user), {"greeting": f"Hi {user['name']}"}, on_success
    )


async def with_token(ctx: ActionCtx, access_token: str) -> TokenCtx:
    return TokenCtx.extend(ctx, token=access_token)


class RoomCtx(UserCtx):
    room: str


async def with_room(ctx: UserCtx, room: str) -> RoomCtx:
    return RoomCtx.extend(ctx, room=f"{room} of {ctx.user['name']}")


user_query = custom_query(with_user)
internal_user_query = custom_function(internal_query, with_user)
user_mutation = custom_mutation(with_audit)
room_query = custom_function(user_query, with_room)
token_action = custom_action(with_token)
"""

FUNCTIONS = """
from __future__ import annotations

from typing import Any

from reactive_store import Id, MutationCtx, mutation, v

from functions._builders import (
    RoomCtx, TokenCtx, UserCtx, UserMutationCtx, internal_user_query, room_query, token_action,
    user_mutation, user_query,
)


@mutation
async def sign_up(ctx: MutationCtx, name: str) -> Id["users"]:
    return await ctx.db.insert("users", {"name": name, "token": f"token-{name}"})


@user_query
async def me(ctx: UserCtx, suffix: str = "") -> str:
    return ctx.user["name"] + suffix


@user_query
async def with_token(ctx: UserCtx, access_token: str) -> str:
    return f"{ctx.user['name']} by {access_token}"


@user_query(args={"friend": v.id("users"), "n": v.optional(v.number())}, returns=v.string())
async def friend(ctx: UserCtx, friend, n=None):
    return n if n == 13 else f"{ctx.user['name']}+{(await ctx.db.get(friend))['name']}"


@user_query(args=v.any())
async def anything(ctx: UserCtx, **rest: Any) -> Any:
    return {"user": ctx.user["name"], **rest}


@internal_user_query
async def secret(ctx: UserCtx) -> str:
    return "secret"


@room_query
async def where(ctx: RoomCtx, floor: Later) -> str:
    return f"{ctx.room}, {floor}"


@user_mutation
async def greet(ctx: UserMutationCtx, how: str, greeting: str = "") -> str:
    await ctx.db.insert("audit", {"text": greeting})
    if how == "raise":
        raise ValueError(how)
    return how


@token_action
async def act(ctx: TokenCtx) -> str:
    return await ctx.run_query(me, access_token=ctx.token, suffix="!")


Later = int
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "functions"
    folder.mkdir()
    (folder / "_builders.py").write_text(BUILDERS, encoding="utf-8")
    (folder / "users.py").write_text(FUNCTIONS, encoding="utf-8")
    return folder


async def audit(ctx: MutationCtx) -> list[str]:
    return [entry["text"] for entry in await ctx.db.query("audit").collect()]


async def test_an_argument_is_consumed_and_the_context_extended(app: Path):
    async with TestBackend(schema=SCHEMA, functions=app) as t:
        await t.mutation("users:signUp", name="ann")
        assert await t.query("users:me", accessToken="token-ann") == "ann"
        assert await t.query("users:me", access_token="token-ann", suffix="?") == "ann?"
        assert await t.query("users:withToken", accessToken="token-ann") == "ann by token-ann"
        with pytest.raises(ConvexError, match="unauthenticated"):
            await t.query("users:me", accessToken="token-bob")
        with pytest.raises(FunctionError, match="missing the required field `accessToken`"):
            await t.query("users:me")
        with pytest.raises(FunctionError, match="ArgumentValidationError"):
            await t.query("users:me", accessToken=7)
        with pytest.raises(FunctionError, match="extra field `other`"):
            await t.query("users:me", accessToken="token-ann", other=1)


async def test_declared_validators_and_unchecked_arguments_work_as_ever(app: Path):
    async with TestBackend(schema=SCHEMA, functions=app) as t:
        ann = await t.mutation("users:signUp", name="ann")
        given = {"accessToken": "token-ann", "friend": ann}
        assert await t.query("users:friend", **given) == "ann+ann"
        with pytest.raises(FunctionError, match="ReturnsValidationError"):
            await t.query("users:friend", **given, n=13)
        with pytest.raises(FunctionError, match="ArgumentValidationError"):
            await t.query("users:friend", accessToken="token-ann", friend="nobody")
        answer = await t.query("users:anything", accessToken="token-ann", x=[1])
        assert answer == {"user": "ann", "x": [1]}


async def test_a_custom_decorator_can_be_customized_again(app: Path):
    async with TestBackend(schema=SCHEMA, functions=app) as t:
        await t.mutation("users:signUp", name="ann")
        given = {"accessToken": "token-ann", "room": "attic"}
        assert await t.query("users:where", **given, floor=2) == "attic of ann, 2"
        assert await t.action("users:act", accessToken="token-ann") == "ann!"


async def test_on_success_runs_in_the_transaction_after_the_handler(app: Path):
    async with TestBackend(schema=SCHEMA, functions=app) as t:
        await t.mutation("users:signUp", name="ann")
        token = {"accessToken": "token-ann"}
        assert await t.mutation("users:greet", **token, how="hello", note="n") == "hello"
        assert await t.run(audit) == ["Hi ann", "ann hello n"]
        with pytest.raises(FunctionError, match="raise"):
            await t.mutation("users:greet", **token, how="raise")
        with pytest.raises(ConvexError, match="refused at the end"):
            await t.mutation("users:greet", **token, how="refuse")
        assert await t.run(audit) == ["Hi ann", "ann hello n"]


async def test_what_a_custom_function_takes_and_where_it_is_can_be_listed(app: Path):
    async with TestBackend(schema=SCHEMA, functions=app) as t:
        loaded = t.backend.runner.app
        listed = {each["identifier"]: each for each in loaded.spec()}
        me = listed["users.js:me"]
        assert me["functionType"] == "Query"
        assert set(me["args"]["value"]) == {"accessToken", "suffix"}
        assert me["args"]["value"]["accessToken"]["optional"] is False
        assert listed["users.js:secret"]["visibility"] == {"kind": "internal"}
        assert set(listed["users.js:where"]["args"]["value"]) == {"accessToken", "room", "floor"}
        function = loaded.functions["users.js:me"]
        assert function.file.endswith("users.py")
        assert function.name == "me"


async def test_a_customized_function_that_cannot_be_is_refused_with_its_place(app: Path):
    text = FUNCTIONS + "\n\n@user_query\nasync def bad(ctx: UserCtx, accessToken: str): ...\n"
    (app / "users.py").write_text(text, encoding="utf-8")
    line = text.splitlines().index("async def bad(ctx: UserCtx, accessToken: str): ...")
    backend = TestBackend(schema=SCHEMA, functions=app)
    with pytest.raises(Exception, match=rf"users\.py:{line}.*both `accessToken`"):
        await backend.__aenter__()


def test_a_customization_is_a_coroutine_function_with_a_context_and_annotations():
    def plain(ctx: QueryCtx) -> QueryCtx:
        return ctx

    async def unannotated(ctx: QueryCtx, token) -> QueryCtx:
        return ctx

    async def no_context() -> None: ...

    wrong: Any
    for wrong, text in (
        (plain, "`plain` is a plain def"),
        (unannotated, "`token` of `unannotated` has neither annotation nor validator"),
        (no_context, "`no_context` takes no context"),
    ):
        with pytest.raises(Exception, match=text):
            custom_query(wrong)


def test_a_handler_that_cannot_be_is_refused_as_without_a_customization():
    async def unchanged(ctx: QueryCtx) -> QueryCtx:
        return ctx

    wrong: Any = custom_query(unchanged)
    with pytest.raises(Exception, match="is a plain def"):

        @wrong
        def plain(ctx: QueryCtx) -> None: ...

    with pytest.raises(Exception, match="decorated twice"):

        @wrong
        @wrong
        async def twice(ctx: QueryCtx) -> None: ...


@pytest.mark.parametrize("errors", CHECKERS)
def test_type_checkers_know_what_handlers_get(errors: Any, tmp_path: Path):
    file = tmp_path / "program.py"
    # With its own place in it: mypy remembers errors by content, under the path of the first time.
    file.write_text(
        f"# {tmp_path}\n"
        + BUILDERS
        + """

from typing import TypeVar, assert_type

from reactive_store import FunctionDecorator
from reactive_store.kit.rules import Rules

C = TypeVar("C", bound=QueryCtx)
rules = Rules[QueryCtx]()


async def with_rules(ctx: C) -> C:
    return rules.guard(ctx)


assert_type(user_query, FunctionDecorator[UserCtx])
assert_type(room_query, FunctionDecorator[RoomCtx])
assert_type(token_action, FunctionDecorator[TokenCtx])
ruled: FunctionDecorator[MutationCtx] = custom_mutation(with_rules)


@user_query
async def name(ctx: UserCtx, suffix: str) -> str:
    assert_type(ctx.user, Document)
    return str(ctx.user["name"]) + suffix


@user_mutation
async def write(ctx: UserMutationCtx) -> None:
    await ctx.db.insert("audit", {"text": ctx.user["name"]})


@user_query
async def wrong(ctx: RoomCtx) -> None: ...  # wrong
""",
        encoding="utf-8",
    )
    lines = file.read_text(encoding="utf-8").splitlines()
    wrong = next(at for at, line in enumerate(lines, 1) if line.endswith("# wrong"))
    found = set(errors(file))
    assert found
    assert found <= {wrong - 1, wrong}
