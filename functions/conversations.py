"""Conversations: where a user talks about a project."""

from __future__ import annotations

from functions._access import get_own, load_own
from reactive_store import UNSET, Document, Id, MutationCtx, QueryCtx, mutation, query

__all__ = ["create", "list_by_project"]


@query
async def list_by_project(ctx: QueryCtx, project_id: Id["projects"]) -> list[Document]:
    """The conversations of one of the caller's projects, newest first; empty when not theirs."""
    if await get_own(ctx, project_id) is None:
        return []
    below = ctx.db.query("conversations").with_index("by_project", projectId=project_id)
    return await below.order("desc").collect()


@mutation
async def create(
    ctx: MutationCtx, project_id: Id["projects"], title: str | None = None
) -> Id["conversations"]:
    """Start a conversation in one of the caller's projects."""
    project = await load_own(ctx, project_id, "project")
    fields = {
        "userId": project["userId"],
        "projectId": project_id,
        "title": title or UNSET,
        "isActive": True,
        "createdAt": ctx.now,
        "updatedAt": ctx.now,
    }
    return await ctx.db.insert("conversations", fields)
