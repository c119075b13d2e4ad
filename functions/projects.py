"""Projects: the folder that everything else of a user hangs below."""

from __future__ import annotations

from functions._access import ensure_user, find_user, get_own, load_own
from functions._ids import ProjectId
from reactive_store import (
    UNSET,
    ConvexError,
    Document,
    MutationCtx,
    QueryCtx,
    mutation,
    query,
)

__all__ = ["create", "get", "list", "remove", "rename"]

# The query below is called `list` on the wire, so the builtin has another name in this module.
_Documents = list[Document]

_BELOW_EXPERIMENTS = ("experimentResults", "experimentInsights", "personas")
_BELOW_PROJECTS = ("contextDocuments", "decisions")


@query
async def list(ctx: QueryCtx) -> _Documents:  # noqa: A001 - the data model calls it projects.list
    """The caller's projects, newest first."""
    user = await find_user(ctx)
    if user is None:
        return []
    own = ctx.db.query("projects").with_index("by_user", userId=user["_id"])
    return await own.order("desc").collect()


@query
async def get(ctx: QueryCtx, project_id: ProjectId) -> Document | None:
    """One of the caller's projects."""
    return await get_own(ctx, project_id)


@mutation
async def create(ctx: MutationCtx, name: str, description: str | None = None) -> ProjectId:
    """A new project of the caller."""
    user = await ensure_user(ctx)
    fields = {
        "userId": user["_id"],
        "name": _name(name),
        "description": description or UNSET,
        "createdAt": ctx.now,
        "updatedAt": ctx.now,
    }
    return await ctx.db.insert("projects", fields)


@mutation
async def rename(ctx: MutationCtx, project_id: ProjectId, name: str) -> None:
    """Give one of the caller's projects another name."""
    await load_own(ctx, project_id, "project")
    await ctx.db.patch(project_id, {"name": _name(name), "updatedAt": ctx.now})


@mutation
async def remove(ctx: MutationCtx, project_id: ProjectId) -> None:
    """Delete one of the caller's projects with everything below it.

    Cost     one delete per document, all in one transaction
    """
    await load_own(ctx, project_id, "project")
    for experiment in await _below(ctx, "experiments", projectId=project_id):
        for table in _BELOW_EXPERIMENTS:
            await _delete_all(
                ctx, await _below(ctx, table, "by_experiment", experimentId=experiment["_id"])
            )
        await ctx.db.delete(experiment["_id"])
    for conversation in await _below(ctx, "conversations", projectId=project_id):
        await _delete_all(
            ctx,
            await _below(ctx, "messages", "by_conversation", conversationId=conversation["_id"]),
        )
        await ctx.db.delete(conversation["_id"])
    for table in _BELOW_PROJECTS:
        await _delete_all(ctx, await _below(ctx, table, projectId=project_id))
    await ctx.db.delete(project_id)


def _name(text: str) -> str:
    name = text.strip()
    if not name:
        raise ConvexError({"code": "empty_name", "message": "A project needs a name."})
    return name


async def _below(
    ctx: MutationCtx, table: str, index: str = "by_project", **equal: str
) -> _Documents:
    return await ctx.db.query(table).with_index(index, **equal).collect()


async def _delete_all(ctx: MutationCtx, documents: _Documents) -> None:
    for document in documents:
        await ctx.db.delete(document["_id"])
