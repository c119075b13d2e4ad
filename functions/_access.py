"""Who is calling, and what is theirs.

A user sees and changes their own projects and what hangs below them; whatever belongs to somebody
else looks exactly like something that does not exist. Callers without a login share one local user,
so that the app works before anybody has set up a login.
"""

from __future__ import annotations

from reactive_store import UNSET, ConvexError, Document, Id, MutationCtx, QueryCtx

__all__ = ["ensure_user", "find_user", "get_own", "load_own", "missing"]

_ANONYMOUS = "anonymous"


def missing(what: str, document_id: str) -> ConvexError:
    """The error for something that is not there, or not the caller's."""
    return ConvexError(
        {"code": "not_found", "message": f"There is no such {what}.", "id": document_id}
    )


async def find_user(ctx: QueryCtx) -> Document | None:
    """The caller's row of `users`; None before their first mutation."""
    identity = await ctx.auth.get_user_identity()
    token = _ANONYMOUS if identity is None else identity.token_identifier
    return await ctx.db.query("users").with_index("by_token", tokenIdentifier=token).unique()


async def ensure_user(ctx: MutationCtx) -> Document:
    """The caller's row of `users`, made on their first mutation."""
    user = await find_user(ctx)
    if user is not None:
        return user
    identity = await ctx.auth.get_user_identity()
    fields = {
        "tokenIdentifier": _ANONYMOUS if identity is None else identity.token_identifier,
        "email": "" if identity is None else identity.email or "",
        "name": "Local user" if identity is None else identity.name or UNSET,
        "createdAt": ctx.now,
        "updatedAt": ctx.now,
    }
    user = await ctx.db.get(await ctx.db.insert("users", fields))
    assert user is not None
    return user


async def get_own(ctx: QueryCtx, document_id: Id) -> Document | None:
    """A document with a `userId`, if it is the caller's."""
    document = await ctx.db.get(document_id)
    if document is None:
        return None
    user = await find_user(ctx)
    return document if user is not None and document["userId"] == user["_id"] else None


async def load_own(ctx: QueryCtx, document_id: Id, what: str) -> Document:
    """A document with a `userId` that must be the caller's.

    Raises   ConvexError with code "not_found"
    """
    document = await get_own(ctx, document_id)
    if document is None:
        raise missing(what, document_id)
    return document
