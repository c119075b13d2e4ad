"""Conversations: where a user talks about a project."""

from __future__ import annotations

from functions._access import get_own, load_own
from functions._ids import ConversationId, ProjectId
from reactive_store import UNSET, Document, MutationCtx, QueryCtx, mutation, query

__all__ = ["create", "list_by_project"]


@query
async def list_by_project(ctx: QueryCtx, project_id: ProjectId) -> list[Document]:
    """The conversations of one of the caller's projects, newest first; empty when not theirs."""
    if await get_own(ctx, project_id) is None:
        return []
    below = ctx.db.query("conversations").with_index("by_project", projectId=project_id)
    return await below.order("desc").collect()


@mutation
async def create(
    ctx: MutationCtx, project_id: ProjectId, title: str | None = None
) -> ConversationId:
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
