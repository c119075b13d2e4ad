"""Sessions: what belongs to one browser tab or device, logged in or not.

The client makes up an id, keeps it (in `sessionStorage`, say) and passes it as the argument
`sessionId` of every call; that is what the session hooks of convex-helpers do. `session_query` and
`session_mutation` take it away from the arguments and give handlers a context that knows it:

    @session_mutation
    async def add_to_cart(ctx: SessionMutationCtx, product: Id["products"]) -> None:
        cart = (await ctx.session.get()).get("cart", [])
        await ctx.session.update({"cart": [*cart, product]})

- What is stored for a session is one document, so calls of different sessions never conflict.
- Whoever knows a session's id has the session. Ids are secrets: never return those of others.

The app declares the table: `define_schema({**session_tables(), …})`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from reactive_store import (
    UNSET,
    ActionCtx,
    Document,
    MutationCtx,
    QueryCtx,
    TableDefinition,
    define_table,
    v,
)
from reactive_store.kit.custom_functions import custom_action, custom_mutation, custom_query

__all__ = [
    "Session",
    "SessionActionCtx",
    "SessionMutationCtx",
    "SessionQueryCtx",
    "SessionWriter",
    "delete_idle_sessions",
    "session_action",
    "session_mutation",
    "session_query",
    "session_tables",
    "with_action_session",
    "with_mutation_session",
    "with_query_session",
]

_TABLE: Final = "sessions"
_BY_ID: Final = "by_session_id"
_BY_TIME: Final = "by_updated_at"


def session_tables() -> dict[str, TableDefinition]:
    """The table `sessions`, to be merged into the schema."""
    fields = {
        "sessionId": v.string(),
        "updatedAt": v.number(),  # Unix milliseconds of the last update
        "data": v.record(v.string(), v.any()),
    }
    table = define_table(fields).index(_BY_ID, ["sessionId"]).index(_BY_TIME, ["updatedAt"])
    return {_TABLE: table}


class Session:
    """What is stored for the caller's session, to be read."""

    __slots__ = ("_ctx", "id")

    def __init__(self, ctx: QueryCtx, id: str) -> None:
        self._ctx = ctx
        self.id = id

    async def get(self) -> dict[str, Any]:
        """What is stored, empty for a session that stored nothing yet. Reads one document."""
        document = await self._document()
        return {} if document is None else dict(document["data"])

    async def _document(self) -> Document | None:
        return await self._ctx.db.query(_TABLE).with_index(_BY_ID, sessionId=self.id).unique()


class SessionWriter(Session):
    """What is stored for the caller's session."""

    __slots__ = ("_writing",)

    def __init__(self, ctx: MutationCtx, id: str) -> None:
        super().__init__(ctx, id)
        self._writing = ctx

    async def update(self, changes: Mapping[str, Any], /) -> None:
        """Store some names anew and keep the others; UNSET removes one."""
        document = await self._document()
        data = {} if document is None else dict(document["data"])
        data.update(changes)
        kept = {name: value for name, value in data.items() if value is not UNSET}
        stored = {"sessionId": self.id, "updatedAt": self._writing.now, "data": kept}
        if document is None:
            await self._writing.db.insert(_TABLE, stored)
        else:
            await self._writing.db.replace(document["_id"], stored)

    async def clear(self) -> None:
        """Forget what is stored."""
        document = await self._document()
        if document is not None:
            await self._writing.db.delete(document["_id"])


class SessionQueryCtx(QueryCtx):
    """A query's context with the caller's session."""

    session: Session

    async def run_session_query(self, reference: object, /, **args: Any) -> Any:
        """`run_query` of a session query, for the same session."""
        return await self.run_query(reference, **args, session_id=self.session.id)


class SessionMutationCtx(MutationCtx):
    """A mutation's context with the caller's session."""

    session: SessionWriter

    async def run_session_query(self, reference: object, /, **args: Any) -> Any:
        """`run_query` of a session query, for the same session."""
        return await self.run_query(reference, **args, session_id=self.session.id)

    async def run_session_mutation(self, reference: object, /, **args: Any) -> Any:
        """`run_mutation` of a session mutation, for the same session."""
        return await self.run_mutation(reference, **args, session_id=self.session.id)


class SessionActionCtx(ActionCtx):
    """An action's context with the id of the caller's session; it has no data of its own."""

    session_id: str

    async def run_session_query(self, reference: object, /, **args: Any) -> Any:
        """`run_query` of a session query, for the same session."""
        return await self.run_query(reference, **args, session_id=self.session_id)

    async def run_session_mutation(self, reference: object, /, **args: Any) -> Any:
        """`run_mutation` of a session mutation, for the same session."""
        return await self.run_mutation(reference, **args, session_id=self.session_id)

    async def run_session_action(self, reference: object, /, **args: Any) -> Any:
        """`run_action` of a session action, for the same session."""
        return await self.run_action(reference, **args, session_id=self.session_id)


async def with_query_session(ctx: QueryCtx, session_id: str) -> SessionQueryCtx:
    """A customization for `custom_function`: takes the argument `sessionId`."""
    return SessionQueryCtx.extend(ctx, session=Session(ctx, session_id))


async def with_mutation_session(ctx: MutationCtx, session_id: str) -> SessionMutationCtx:
    """A customization for `custom_function`: takes the argument `sessionId`."""
    return SessionMutationCtx.extend(ctx, session=SessionWriter(ctx, session_id))


async def with_action_session(ctx: ActionCtx, session_id: str) -> SessionActionCtx:
    """A customization for `custom_function`: takes the argument `sessionId`."""
    return SessionActionCtx.extend(ctx, session_id=session_id)


session_query: Final = custom_query(with_query_session)
"""`@query` whose handlers get a SessionQueryCtx."""

session_mutation: Final = custom_mutation(with_mutation_session)
"""`@mutation` whose handlers get a SessionMutationCtx."""

session_action: Final = custom_action(with_action_session)
"""`@action` whose handlers get a SessionActionCtx."""


async def delete_idle_sessions(ctx: MutationCtx, before_ms: float, *, limit: int = 500) -> int:
    """Forget sessions that stored nothing since a time in Unix milliseconds; how many it were.

    At most `limit` at once: call it again, from a cron say, as long as the answer is `limit`.
    """
    query = ctx.db.query(_TABLE).with_index(_BY_TIME, lambda r: r.lt("updatedAt", before_ms))
    idle = await query.take(limit)
    for each in idle:
        await ctx.db.delete(each["_id"])
    return len(idle)
